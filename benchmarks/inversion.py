"""Cases of CLCAE: images to codes and F, the whole inversion, and an edit of it."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from benchmarks.case import Case, Ratio, Variant
from benchmarks.networks import PORTRAITS, Networks
from benchmarks.synthesis import synthesis
from benchmarks.timing import Call
from clcae.methods.foundation import FoundationInversion
from clcae.metrics.cost import count_operations
from clcae.nn.folding import folded

RESOLUTION = 1024


def encoder_cases(networks: Networks, *, quick: bool) -> Iterator[Case]:
    """Images to w, W+ and F alone, as it is and with its normalisation folded."""
    resolution = PORTRAITS if quick else RESOLUTION
    count = count_operations(encoding(networks, resolution, 1)).total
    for batch in (1,) if quick else (1, 4):
        yield Case(
            name=f"CLCAE {resolution} px, batch {batch}",
            variants={
                name: Variant(
                    prepare=_later(networks, part, resolution, batch),
                    images=batch,
                    operations=batch * count,
                )
                for name, part in {"clcae": encoding, "clcae (folded)": folded_encoding}.items()
            },
            ratios=[Ratio(["clcae"], ["clcae (folded)"])],
            peaks=["clcae"] if batch == 1 and not quick else [],
        )


def inversion_cases(networks: Networks, *, quick: bool) -> Iterator[Case]:
    """Image to codes, F and picture, against one encoder pass and one synthesis."""
    resolution = PORTRAITS if quick else RESOLUTION
    parts = {"whole": inversion, "encoder": encoding, "synthesis": synthesis}
    yield _case(networks, resolution, parts, Ratio(["whole"], ["encoder", "synthesis"]))


def edit_cases(networks: Networks, *, quick: bool) -> Iterator[Case]:
    """Codes changed and picture out, against one synthesis."""
    resolution = PORTRAITS if quick else RESOLUTION
    parts = {"edit": edit, "synthesis": synthesis}
    yield _case(networks, resolution, parts, Ratio(["edit"], ["synthesis"]))


def _case(
    networks: Networks,
    resolution: int,
    parts: Mapping[str, Callable[[Networks, int, int], Call]],
    ratio: Ratio,
) -> Case:
    whole = next(iter(parts))
    return Case(
        name=f"CLCAE {resolution} px with F, batch 1",
        variants={
            name: Variant(prepare=_later(networks, part, resolution, 1), images=1)
            for name, part in parts.items()
        },
        ratios=[ratio],
        peaks=[whole] if resolution != PORTRAITS else [],
    )


def _later(
    networks: Networks, part: Callable[[Networks, int, int], Call], resolution: int, batch: int
) -> Callable[[], Call]:
    return lambda: part(networks, resolution, batch)


def encoding(networks: Networks, resolution: int, batch: int) -> Call:
    """Images to w, W+ and F, given the generator's own feature."""
    return _encoding(networks, networks.method(resolution), networks.images(resolution, batch))


def folded_encoding(networks: Networks, resolution: int, batch: int) -> Call:
    """The same for inference."""
    method = folded(networks.method(resolution))
    return _encoding(networks, method, networks.images(resolution, batch))


def _encoding(networks: Networks, method: FoundationInversion, images: Tensor) -> Call:
    shape = (len(images), *method.generator.feature_shape(method.layer))
    own = torch.zeros(shape, device=networks.device)

    @torch.no_grad()
    def call() -> Tensor:
        return method.feature_of(method.encode(images), own)

    return call


def inversion(networks: Networks, resolution: int, batch: int) -> Call:
    """Images to pictures by way of codes and F."""
    method, images = networks.method(resolution), networks.images(resolution, batch)
    return torch.no_grad()(lambda: method.synthesize(method.invert(images)))


def edit(networks: Networks, resolution: int, batch: int) -> Call:
    """An inversion that is there already, its codes moved, to pictures."""
    method, images = networks.method(resolution), networks.images(resolution, batch)
    with torch.no_grad():
        inverted = method.invert(images)
        step = 0.1 * torch.ones_like(inverted.codes[:1])
    return torch.no_grad()(
        lambda: method.synthesize(method.edit(inverted, lambda codes: codes + step))
    )
