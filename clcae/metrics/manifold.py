"""Precision and recall of a set of images: how much of it lies among real ones, and the reverse.

Kynkaanniemi et al., "Improved precision and recall metric for assessing generative models" (2019),
section 2: a set stands for the union of balls about its features, each as large as the distance to
its k-th nearest neighbour. Deviation: distances are float64 (theirs: float16), and a distance that
exceeds a radius by rounding alone counts as inside.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from clcae.metrics.feature_sets import ReservoirMetric, row_blocks

NEIGHBOURS = 3  # section 3
ROUNDING = 1e-11  # of a squared distance, relative to the largest squared length


def share_inside(
    vectors: Tensor,  # [M, D]
    manifold: Tensor,  # [K, D]
    *,
    neighbours: int = NEIGHBOURS,
) -> float:
    """Computes the share of vectors within a ball of the manifold; equations 1 and 2.

    The balls reach to the manifold's own nearest neighbours, counted from 1.

    Raises:
        ValueError: if lengths differ, there are no vectors, or the manifold has no vector with so
            many neighbours.
    """
    if vectors.ndim != 2 or manifold.ndim != 2 or vectors.shape[1] != manifold.shape[1]:
        raise ValueError(
            f"vectors {tuple(vectors.shape)} and {tuple(manifold.shape)}: expected [M, D], [K, D]"
        )
    if not 1 <= neighbours < len(manifold) or len(vectors) == 0:
        raise ValueError(
            f"{len(vectors)} vectors, {len(manifold)} in the manifold: expected one or more, and "
            f"more than {neighbours} neighbours"
        )
    # Distances do not depend on the origin, rounding does.
    origin = manifold.double().mean(dim=0)
    vectors, manifold = vectors.double() - origin, manifold.double() - origin
    lengths = torch.cat([vectors, manifold]).square().sum(dim=1)
    tolerance = ROUNDING * float(lengths.max())
    radii = torch.cat(
        [
            _squared_distances(rows, manifold).kthvalue(neighbours + 1).values  # itself is nearest
            for rows in row_blocks(manifold, columns=len(manifold))
        ]
    )
    inside = [
        (_squared_distances(rows, manifold) <= radii + tolerance).any(dim=1)
        for rows in row_blocks(vectors, columns=len(manifold))
    ]
    return float(torch.cat(inside).double().mean())


class _ManifoldMetric(ReservoirMetric):
    """Computes either share, of the features kept of both sets."""

    direction = "higher"
    range = (0.0, 1.0)
    share: ClassVar[str]

    @property
    def protocol(self) -> Mapping[str, str]:
        return {**super().protocol, "value": self.share, "neighbours": str(NEIGHBOURS)}


class Precision(_ManifoldMetric):
    """Computes the share of outputs that lie in a ball of the targets: fidelity."""

    share = "share of outputs within a ball of the targets"

    def compute(self) -> float:
        outputs, targets = self.kept(least=NEIGHBOURS + 1)
        return share_inside(outputs, targets)


class Recall(_ManifoldMetric):
    """Computes the share of targets that lie in a ball of the outputs: variety."""

    share = "share of targets within a ball of the outputs"

    def compute(self) -> float:
        outputs, targets = self.kept(least=NEIGHBOURS + 1)
        return share_inside(targets, outputs)


def _squared_distances(rows: Tensor, others: Tensor) -> Tensor:
    """Computes squared distances [M, K] of vectors [M, D] and [K, D]."""
    lengths = rows.square().sum(dim=1)[:, None] + others.square().sum(dim=1)
    return (lengths - 2 * rows @ others.T).clamp(min=0)
