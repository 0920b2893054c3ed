"""Groups of the generator: codes to pictures, by size, batch and threads.

The operations of synthesis are those of its convolutions (3x3, with a stride of 2 where they
enlarge, and 1x1 to RGB), in whatever form they are computed; filters are left out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch

from benchmarks.ceilings import (
    CONVOLUTIONS,
    SMALL_CONVOLUTIONS,
    convolution,
    convolution_operations,
)
from benchmarks.measurement import Group, Quantity, Ratio, Variant
from benchmarks.network_cache import PORTRAITS, NetworkCache
from benchmarks.timing import Call
from benchmarks.yardstick.synthesis import Fir, filtered, filtered_by_groups
from clcae.ops import kernels

SIZES = ((256, 1), (256, 4), (512, 1), (512, 4), (1024, 1), (1024, 4))  # resolution, batch
QUICK_SIZES = ((PORTRAITS, 1), (PORTRAITS, 4), (128, 1))
DEPTHWISE = "textbook (depthwise FIR)"  # the filter as one depthwise convolution
CEILING = "3x3 convolution"  # what the machine does best, at this moment
PROGRAM = "textbook (plain program)"  # in a process of its own, with memory as the system has it


def operations(
    channels: Sequence[int],  # from 4x4 up
) -> int:
    """Counts the operations of one picture's convolutions, a multiply-add as 2."""
    count = 0
    for block, outputs in enumerate(channels):
        pixels = (4 << block) ** 2
        if block:
            count += 2 * 9 * channels[block - 1] * outputs * pixels // 4
        count += 2 * 9 * outputs**2 * pixels + 2 * 3 * outputs * pixels
    return count


def generator_groups(networks: NetworkCache, *, quick: bool) -> Iterator[Group]:
    """Compares ours with the textbook: in this process, in one of its own, with both filters."""
    for resolution, batch in QUICK_SIZES if quick else SIZES:
        peaks = ["clcae", "textbook"] if batch == 1 and not quick else []
        yield _generator_group(networks, resolution, batch, peaks)


def _generator_group(
    networks: NetworkCache, resolution: int, batch: int, peaks: Sequence[str]
) -> Group:
    size = networks, resolution, batch
    ways: dict[str, Callable[[], Call]] = {"clcae": partial(synthesis, *size)}
    if networks.compile:
        ways["clcae (compiled)"] = partial(_compiled, *size)
    ours = list(ways)
    ways["textbook"] = partial(_textbook, *size, filtered)
    others = ["textbook"]
    if networks.memory_kept and batch == 1 and resolution != PORTRAITS:
        ways[PROGRAM] = ways["textbook"]
        others.append(PROGRAM)
    if batch == 1:
        ways[DEPTHWISE] = partial(_textbook, *size, filtered_by_groups)
        others.append(DEPTHWISE)
    ratios = [Ratio([CEILING], [name], "seconds an operation") for name in ours]
    ratios += [Ratio([other], [name]) for other in others for name in ours]
    if peaks:
        ratios.append(Ratio(["clcae"], ["textbook"], "peak memory"))
    ratios += [Ratio(["clcae"], [name]) for name in ours[1:]]
    if networks.device.type == "cuda":
        half = "clcae (float16)"
        references = "references (float16, compiled)"
        ways[half] = lambda: _half(synthesis(*size))
        ways[references] = lambda: _half(_compiled_references(*size))
        ratios.append(Ratio([references], [half]))
    count = batch * operations(networks.generator(resolution).channels)
    best = SMALL_CONVOLUTIONS[1] if resolution == PORTRAITS else CONVOLUTIONS[2]
    ceiling = Variant(
        prepare=partial(convolution, *best, networks.device),
        operations=convolution_operations(*best),
        warmed=True,  # a ceiling should not depend on what ran before
    )
    variants = {
        name: Variant(prepare=way, images=batch, operations=count, apart=name == PROGRAM)
        for name, way in ways.items()
    }
    return Group(
        name=f"{resolution} px, batch {batch}",
        variants={CEILING: ceiling, **variants},
        ratios=ratios,
        peaks=peaks,
    )


def scaling_groups(networks: NetworkCache, *, quick: bool) -> Iterator[Group]:
    """Compares ours with itself: more pictures at once, more pixels, more threads."""
    side = PORTRAITS if quick else 256

    def variant(resolution: int, batch: int, threads: int | None = None) -> Variant:
        return Variant(
            prepare=lambda: with_threads(threads, synthesis(networks, resolution, batch)),
            images=batch,
            operations=batch * operations(networks.generator(resolution).channels),
        )

    batches = {f"batch {n}": variant(side, n) for n in ((1, 2) if quick else (1, 2, 4, 8))}
    sides = {f"{n} px": variant(n, 1) for n in ((side, 256) if quick else (256, 512, 1024))}
    yield _scaling(f"{side} px by batch", batches, "seconds an image")
    yield _scaling("batch 1 by resolution", sides, "seconds")
    most = torch.get_num_threads()
    if networks.device.type == "cpu" and most > 1:
        counts = [1 << power for power in range(8) if 1 << power < most] + [most]
        threads = {f"threads {n}": variant(side, 1, n) for n in counts}
        yield _scaling(f"{side} px, batch 1, by threads", threads, "seconds")


def _scaling(name: str, variants: Mapping[str, Variant], quantity: Quantity) -> Group:
    first, *others = variants
    ratios = [Ratio([other], [first], quantity) for other in others]
    return Group(name=name, variants=variants, ratios=ratios)


def synthesis(networks: NetworkCache, resolution: int, batch: int) -> Call:
    """Makes a call from codes to pictures, without gradients."""
    generator, codes = networks.generator(resolution), networks.codes(resolution, batch)
    return torch.no_grad()(lambda: generator.synthesize(codes))


def _textbook(networks: NetworkCache, resolution: int, batch: int, fir: Fir) -> Call:
    textbook = networks.textbook(resolution, fir=fir)
    codes = networks.codes(resolution, batch)
    return torch.no_grad()(lambda: textbook(codes))


def _compiled(networks: NetworkCache, resolution: int, batch: int) -> Call:
    generator, codes = networks.compiled_generator(resolution), networks.codes(resolution, batch)
    call: Call = torch.no_grad()(lambda: generator.synthesize(codes))
    call()  # compiles before it is timed
    return call


def _half(call: Call) -> Call:
    return torch.autocast("cuda", torch.float16)(call)


def _compiled_references(networks: NetworkCache, resolution: int, batch: int) -> Call:
    generator, codes = networks.generator(resolution), networks.codes(resolution, batch)
    fast = torch.compile(generator.synthesize)

    def call() -> None:
        with torch.no_grad(), kernels.disabled():
            fast(codes)

    return call


def with_threads(count: int | None, call: Call) -> Call:
    """Makes a call with another number of threads; None leaves it."""
    if count is None:
        return call
    usual = torch.get_num_threads()

    def limited() -> None:
        torch.set_num_threads(count)
        try:
            call()
        finally:
            torch.set_num_threads(usual)

    return limited
