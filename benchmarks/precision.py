"""Groups of precision: bfloat16 against float32, in time and in the picture.

Both are forms for inference of the same network. The difference is that of the pictures as they
are written, clamped to [-1, 1]: 10 log10(4 / mean squared error). Where the device has no bfloat16
there is nothing to measure.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.measurement import Group, Ratio, Variant
from benchmarks.network_cache import PORTRAITS, NetworkCache
from benchmarks.timing import Call
from clcae.methods.interface import InversionMethod
from clcae.methods.optimization import Optimization
from clcae.precision import Precision, bfloat16_lacking

SIZES = (256, 512, 1024)
QUICK_SIZES = (PORTRAITS,)
RESOLUTION = 1024  # of the methods' generator
METHODS = ("CLCAE", "e4e", "StyleRes")

Make = Callable[[Precision], Callable[[], Tensor]]


def precision_groups(networks: NetworkCache, *, quick: bool) -> Iterator[Group]:
    """Compares synthesis, and methods from picture to picture, in both precisions."""
    if bfloat16_lacking(networks.device) is not None:
        return
    for resolution in QUICK_SIZES if quick else SIZES:
        yield _group(f"synthesis, {resolution} px", partial(_synthesis, networks, resolution))
        if not quick:
            networks.clear()
    resolution = PORTRAITS if quick else RESOLUTION
    for name in METHODS[:1] if quick else METHODS:
        make = partial(_method, networks, resolution, name)
        yield _group(f"{name}, picture to picture, {resolution} px", make)


def search_groups(networks: NetworkCache, *, quick: bool) -> Iterator[Group]:
    """Compares a search of F/Z+ of two steps with one of a single step, and with one synthesis."""
    resolution = PORTRAITS if quick else RESOLUTION
    ways: dict[str, Callable[[], Call]] = {
        "2 steps": partial(_search, networks, resolution, 2),
        "1 step": partial(_search, networks, resolution, 1),
        "synthesis": lambda: _synthesis(networks, resolution, "float32"),
    }
    yield Group(
        name=f"F/Z+ {resolution} px, batch 1",
        variants={name: Variant(prepare=way, images=1) for name, way in ways.items()},
        ratios=[Ratio(["2 steps"], ["1 step"]), Ratio(["1 step"], ["synthesis"])],
        needs=0.0 if quick else 4.0,
    )


def _group(name: str, make: Make) -> Group:
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    return Group(
        name=f"{name}, batch 1",
        variants={each: Variant(prepare=partial(make, each), images=1) for each in precisions},
        ratios=[Ratio(["float32"], ["bfloat16"])],
        facts={"bfloat16 from float32, dB": lambda: _decibels(make)},
    )


def _decibels(make: Make) -> float:
    exact, near = (make(precision)().clamp(-1, 1) for precision in ("float32", "bfloat16"))
    return 10 * math.log10(4 / max(float((near - exact).square().mean()), 1e-12))


def _synthesis(
    networks: NetworkCache, resolution: int, precision: Precision
) -> Callable[[], Tensor]:
    generator = networks.generator(resolution).for_inference(precision)
    codes = networks.codes(resolution, 1)
    return torch.no_grad()(lambda: generator.synthesize(codes))


def _method(
    networks: NetworkCache, resolution: int, name: str, precision: Precision
) -> Callable[[], Tensor]:
    method: InversionMethod = {
        "CLCAE": networks.method,
        "e4e": networks.e4e,
        "StyleRes": networks.styleres,
    }[name](resolution)
    fast, images = method.for_inference(precision), networks.images(resolution, 1)
    return torch.no_grad()(lambda: fast.synthesize(fast.invert(images)))


def _search(networks: NetworkCache, resolution: int, steps: int) -> Call:
    method = Optimization(
        generator=networks.generator(resolution), output="F/Z+", layer="16x16/0", steps=steps
    )
    shape = (1, 3, *method.image_shape)
    images = torch.zeros(shape, device=networks.device)
    return lambda: method.invert(images)
