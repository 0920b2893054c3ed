"""Losses of pivotal tuning (PTI, arXiv 2106.05744), one value a picture.

Reconstruction: squared error and perceptual distance. Locality: the same between the pictures of
the changed and the given generator, for codes at a distance from the pivot towards samples
(`training/coaches` and `criteria/localitly_regulizer.py` of danielroich/PTI).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from clcae.frozen.judges import PerceptualNetwork
from clcae.losses.optimization import perceptual_features, squared_errors

TERMS = ("pixel", "perceptual")


def picture_errors(
    pictures: Tensor,  # [N, 3, H, W], about [-1, 1]
    targets: Tensor,  # [N, 3, H, W], in [-1, 1]
    target_features: Sequence[Tensor] | None,  # `perceptual_features` of the targets
    network: PerceptualNetwork | None,
    size: int | None,  # side for the perceptual network; None: that of the pictures
) -> dict[str, Tensor]:
    """Computes the terms "pixel" and, with features and a network, "perceptual", each [N]."""
    terms = {"pixel": squared_errors(pictures, targets)}
    if network is not None and target_features is not None:
        features = perceptual_features(pictures, network, size)
        terms["perceptual"] = network.distance(features, target_features)
    return terms


def at_distance(
    pivot: Tensor,  # [1, L, w_dim]
    samples: Tensor,  # [S, L or 1, w_dim]
    distance: float,
) -> Tensor:
    """Returns the codes [S, L, w_dim] at a distance from a pivot towards samples.

    The distance is the Euclidean one of whole codes, of all rows together.
    """
    ways = samples - pivot
    lengths = torch.linalg.vector_norm(ways.flatten(1), dim=1)
    return pivot + distance * ways / lengths[:, None, None]
