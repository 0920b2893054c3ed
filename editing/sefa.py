"""SeFa: directions in closed form from the weights by which styles modulate the convolutions.

Shen and Zhou 2021, "Closed-Form Factorization of Latent Semantics in GANs" (arXiv 2007.06600),
section 3.2. Two forms are in use: `editings/sefa.py` of e4e takes chosen layers and scales every
column of the concatenated weights to unit length before the eigenvectors of A^T A; rosinality's
`closed_form_factorization.py` takes the weights of all convolutions and of the first to-RGB as they
are. Deviations: the sign of a vector is such that its largest entry is positive; and the rows that
move are those which the chosen layers read. e4e's code moves the row below each, and none for layer
0, because its list of convolutions does not count the first.

The weights read w, so that there is no SeFa of Z; F/Z+ has none either.
"""

import torch
from torch import Tensor, nn

from clcae.nn.equalized import EqualizedLinear
from clcae.stylegan2 import Generator, LatentSpace
from editing.calibration import by_width
from editing.directions import Direction
from editing.ganspace import signed
from editing.statistics import LatentStatistics

STRENGTHS = (-15.0, 15.0)  # e4e's distances, of unit vectors
LAYERS = (2, 6)  # e4e's choice, [2, 3, 4, 5]


def modulation_weights(
    generator: Generator,
    layers: tuple[int, int] | None = None,  # first to end, exclusive; None: all
) -> Tensor:
    """Stacks the modulation matrices A of styled convolutions: [sum of C_in, w_dim].

    Raises:
        ValueError: if the generator has no such layers.
    """
    first, end = layers if layers is not None else (0, generator.num_layers)
    if not 0 <= first < end <= generator.num_layers:
        raise ValueError(
            f"layers {first} to {end}, the generator has {generator.num_layers} styled "
            "convolutions: expected 0 <= first < end (exclusive)"
        )
    return torch.cat([_weight(layer) for layer in list(generator.synthesis.layers)[first:end]])


def _weight(layer: nn.Module) -> Tensor:
    assert isinstance(layer.affine, EqualizedLinear)
    return layer.affine.weight.detach().cpu()


def factorize(
    generator: Generator,
    *,
    layers: tuple[int, int] | None = LAYERS,  # first to end, exclusive; None: all
) -> tuple[Tensor, Tensor]:
    """Computes eigenvalues [D], largest first, and eigenvectors [D, D] as rows, of A^T A.

    Every row of A (one style each) is scaled to unit length first, as e4e's code and SeFa's do.

    Raises:
        ValueError: if the generator has no such layers.
    """
    weights = modulation_weights(generator, layers).double()
    weights = weights / weights.norm(dim=1, keepdim=True).clamp_min(1e-12)
    values, vectors = torch.linalg.eigh(weights.T @ weights)
    return values.flip(0), signed(vectors.flip(1).T)


def factorize_whole(generator: Generator) -> tuple[Tensor, Tensor]:
    """Computes singular values [K], largest first, and right singular vectors [K, D] of all layers.

    rosinality's variant: the unscaled weights of all styled convolutions and of the first to-RGB.
    """
    first_rgb = _weight(generator.synthesis.to_rgbs[0])
    weights = torch.cat([modulation_weights(generator), first_rgb]).double()
    _, values, vectors = torch.linalg.svd(weights, full_matrices=False)
    return values, signed(vectors)


def find_directions(
    generator: Generator, *, layers: tuple[int, int] | None, count: int
) -> dict[str, Direction]:
    """Finds the leading directions; strength 1 is one width of W along each.

    `layers` (first to end, exclusive) are factorised and moved; None is rosinality's form.

    Raises:
        ValueError: if the generator has no such layers.
    """
    if layers is None:
        _, vectors = factorize_whole(generator)
    else:
        _, vectors = factorize(generator, layers=layers)
    statistics = LatentStatistics.of_generator(generator)
    found = directions_of(vectors, count=count, rows=layers)
    return {
        name: by_width(direction, statistics.deviation(direction.vector[0]))
        for name, direction in found.items()
    }


def directions_of(
    vectors: Tensor,  # [K, D], of unit length, leading first
    *,
    count: int,
    rows: tuple[int, int] | None,  # moved, first to end exclusive; None: all
    strengths: tuple[float, float] = STRENGTHS,
    method: str = "SeFa",
) -> dict[str, Direction]:
    """Makes directions sefa0, sefa1, ... of the leading vectors: increments in W."""
    return {
        f"sefa{index}": Direction(
            name=f"sefa{index}",
            vector=vectors[index : index + 1].float(),
            space=LatentSpace.W,
            layers=rows,
            strengths=strengths,
            meaning="one unit of length in W",
            provenance={"method": method, "index": index},
        )
        for index in range(min(count, len(vectors)))
    }
