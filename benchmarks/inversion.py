"""Groups of CLCAE: images to codes and F, the whole inversion, and an edit of it."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from benchmarks.generator import synthesis
from benchmarks.measurement import Group, Ratio, Variant
from benchmarks.network_cache import PORTRAITS, NetworkCache
from benchmarks.timing import Call
from clcae.methods.foundation import FoundationInversion
from clcae.metrics.cost import count_operations
from clcae.nn.folding import folded

RESOLUTION = 1024

Part = Callable[[NetworkCache, int, int], Call]  # of a resolution and a batch size


def encoder_groups(networks: NetworkCache, *, quick: bool) -> Iterator[Group]:
    """Compares the encoder as it is with the encoder whose normalisation is folded."""
    resolution = PORTRAITS if quick else RESOLUTION
    count = count_operations(encoding(networks, resolution, 1))
    for batch in (1,) if quick else (1, 4):
        yield Group(
            name=f"CLCAE {resolution} px, batch {batch}",
            variants={
                name: Variant(
                    prepare=partial(part, networks, resolution, batch),
                    images=batch,
                    operations=batch * count,
                )
                for name, part in {"clcae": encoding, "clcae (folded)": folded_encoding}.items()
            },
            ratios=[Ratio(["clcae"], ["clcae (folded)"])],
            peaks=["clcae"] if batch == 1 and not quick else [],
        )


def inversion_groups(networks: NetworkCache, *, quick: bool) -> Iterator[Group]:
    """Compares image to picture with F with one encoder pass and one synthesis."""
    parts = {"whole": inversion, "encoder": encoding, "synthesis": synthesis}
    yield _group(networks, quick, parts, Ratio(["whole"], ["encoder", "synthesis"]))


def edit_groups(networks: NetworkCache, *, quick: bool) -> Iterator[Group]:
    """Compares edited codes to picture with one synthesis."""
    parts = {"edit": edit, "synthesis": synthesis}
    yield _group(networks, quick, parts, Ratio(["edit"], ["synthesis"]))


def _group(networks: NetworkCache, quick: bool, parts: Mapping[str, Part], ratio: Ratio) -> Group:
    resolution = PORTRAITS if quick else RESOLUTION
    return Group(
        name=f"CLCAE {resolution} px with F, batch 1",
        variants={
            name: Variant(prepare=partial(part, networks, resolution, 1), images=1)
            for name, part in parts.items()
        },
        ratios=[ratio],
        peaks=[] if quick else [next(iter(parts))],
    )


def encoding(networks: NetworkCache, resolution: int, batch: int) -> Call:
    """Makes a call from images to w, W+ and F, given the generator's own feature."""
    return _encoding(networks, networks.method(resolution), networks.images(resolution, batch))


def folded_encoding(networks: NetworkCache, resolution: int, batch: int) -> Call:
    """Makes the call of `encoding` with the normalisation folded into the weights."""
    method = folded(networks.method(resolution))
    return _encoding(networks, method, networks.images(resolution, batch))


def _encoding(networks: NetworkCache, method: FoundationInversion, images: Tensor) -> Call:
    shape = (len(images), *method.generator.feature_shape(method.layer))
    own = torch.zeros(shape, device=networks.device)

    @torch.no_grad()
    def call() -> Tensor:
        return method.feature_of(method.encode(images), own)

    return call


def inversion(networks: NetworkCache, resolution: int, batch: int) -> Call:
    """Makes a call from images to pictures by way of codes and F."""
    method, images = networks.method(resolution), networks.images(resolution, batch)
    return torch.no_grad()(lambda: method.synthesize(method.invert(images)))


def edit(networks: NetworkCache, resolution: int, batch: int) -> Call:
    """Makes a call from a finished inversion to the picture with its codes moved."""
    method, images = networks.method(resolution), networks.images(resolution, batch)
    with torch.no_grad():
        inverted = method.invert(images)
        step = 0.1 * torch.ones_like(inverted.codes[:1])
    return torch.no_grad()(
        lambda: method.synthesize(method.edit(inverted, lambda codes: codes + step))
    )
