"""Cases of the generator: codes to pictures, by size, batch and threads.

The operations of synthesis are those of its convolutions (3x3, with a stride of 2 where they
enlarge, and 1x1 to RGB), in whatever form they are computed; filters are left out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from benchmarks.case import Case, Quantity, Ratio, Variant
from benchmarks.hardware import CONVOLUTIONS, SMALL_CONVOLUTIONS, Convolution
from benchmarks.networks import PORTRAITS, Networks
from benchmarks.timing import Call
from clcae.ops import kernels

SIZES = ((256, 1), (256, 4), (512, 1), (512, 4), (1024, 1), (1024, 4))  # resolution, batch
QUICK_SIZES = ((PORTRAITS, 1), (PORTRAITS, 4), (256, 1))
DEPTHWISE = "textbook (depthwise FIR)"  # its other way to write the filter
CEILING = "3x3 convolution"  # what the machine does best, at this moment
PROGRAM = "textbook (plain program)"  # in a process of its own, with memory as the system has it


def operations(
    channels: Sequence[int],  # from 4x4 up
) -> int:
    """Of the convolutions of one picture, a multiplication with its addition as 2."""
    count = 0
    for block, outputs in enumerate(channels):
        pixels = (4 << block) ** 2
        if block:
            count += 2 * 9 * channels[block - 1] * outputs * pixels // 4
        count += 2 * 9 * outputs**2 * pixels + 2 * 3 * outputs * pixels
    return count


def generator_cases(networks: Networks, *, quick: bool) -> Iterator[Case]:
    """Ours against the textbook's: in this process, in a program of its own, its two filters."""
    sizes = QUICK_SIZES if quick else SIZES
    for resolution, batch in sizes:
        peaks = ["clcae", "textbook"] if batch == 1 and not quick else []
        yield _generator_case(networks, resolution, batch, peaks)


def _generator_case(networks: Networks, resolution: int, batch: int, peaks: Sequence[str]) -> Case:
    ways: dict[str, Callable[[], Call]] = {"clcae": lambda: synthesis(networks, resolution, batch)}
    served: dict[str, str] = {}
    if networks.compiled is not None:
        ways["clcae (compiled)"] = lambda: _compiled(networks, resolution, batch)
    ours = list(ways)
    ratios = [Ratio([CEILING], [name], "seconds an operation") for name in ours]
    if networks.textbook is not None:
        ways["textbook"] = lambda: _plain(networks, resolution, batch, "filtered")
        ratios += [Ratio(["textbook"], [name]) for name in ours]
        if networks.memory_kept and batch == 1 and resolution != PORTRAITS:
            ways[PROGRAM] = ways["textbook"]
            served[PROGRAM] = "textbook"
            ratios += [Ratio([PROGRAM], [name]) for name in ours]
        if batch == 1:
            ways[DEPTHWISE] = lambda: _plain(networks, resolution, batch, "filtered_by_groups")
            ratios += [Ratio([DEPTHWISE], [name]) for name in ours]
        if peaks:
            ratios.append(Ratio(["clcae"], ["textbook"], "peak memory"))
    ratios += [Ratio(["clcae"], [name]) for name in ours[1:]]
    if networks.device.type == "cuda":
        half = "clcae (float16)"
        references = "references (float16, compiled)"
        ways[half] = lambda: _half(synthesis(networks, resolution, batch))
        ways[references] = lambda: _half(_compiled_references(networks, resolution, batch))
        ratios.append(Ratio([references], [half]))
    count = batch * operations(networks.generator(resolution).channels)
    size = SMALL_CONVOLUTIONS[1] if resolution == PORTRAITS else CONVOLUTIONS[2]
    best = Variant(
        prepare=lambda: Convolution(*size, networks.device),
        operations=Convolution.operations(*size),
    )
    return Case(
        name=f"{resolution} px, batch {batch}",
        variants={
            CEILING: best,
            **{
                name: Variant(prepare=way, images=batch, operations=count, served=served.get(name))
                for name, way in ways.items()
            },
        },
        ratios=ratios,
        peaks=[name for name in peaks if name in ways],
    )


def scaling_cases(networks: Networks, *, quick: bool) -> Iterator[Case]:
    """Ours against itself: more pictures at once, more pixels, more threads."""
    side = PORTRAITS if quick else 256

    def variant(resolution: int, batch: int, threads: int | None = None) -> Variant:
        return Variant(
            prepare=lambda: _with_threads(threads, synthesis(networks, resolution, batch)),
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


def _scaling(name: str, variants: Mapping[str, Variant], quantity: Quantity) -> Case:
    first, *others = variants
    ratios = [Ratio([other], [first], quantity) for other in others]
    return Case(name=name, variants=variants, ratios=ratios)


def synthesis(networks: Networks, resolution: int, batch: int) -> Call:
    """Codes to pictures, as a call without gradients."""
    generator, codes = networks.generator(resolution), networks.codes(resolution, batch)
    return torch.no_grad()(lambda: generator.synthesize(codes))


def _plain(networks: Networks, resolution: int, batch: int, fir: str) -> Call:
    plain = networks.plain_synthesis(resolution, fir=fir)
    codes = networks.codes(resolution, batch)
    return torch.no_grad()(lambda: plain(codes))


def _compiled(networks: Networks, resolution: int, batch: int) -> Call:
    """Compiled before it is timed, however long that takes."""
    generator, codes = networks.compiled_generator(resolution), networks.codes(resolution, batch)
    call: Call = torch.no_grad()(lambda: generator.synthesize(codes))
    call()
    return call


def _half(call: Call) -> Call:
    return torch.autocast("cuda", torch.float16)(call)


def _compiled_references(networks: Networks, resolution: int, batch: int) -> Call:
    generator, codes = networks.generator(resolution), networks.codes(resolution, batch)
    fast = torch.compile(generator.synthesize)

    def call() -> None:
        with torch.no_grad(), kernels.disabled():
            fast(codes)

    return call


def _with_threads(count: int | None, call: Call) -> Call:
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
