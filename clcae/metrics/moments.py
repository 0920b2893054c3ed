"""Running mean and covariance of vectors, by batches and by parts.

Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances"
(1979): means and scatter about the mean are carried instead of sums of squares, which would cancel.
"""

import torch
from torch import Tensor


class Moments:
    """Accumulates count, mean and scatter matrix of vectors [N, D], float64 on the CPU."""

    def __init__(self, *, dimension: int) -> None:
        self.count = 0
        self.mean = torch.zeros(dimension, dtype=torch.float64)
        self.scatter = torch.zeros(dimension, dimension, dtype=torch.float64)

    def update(
        self,
        vectors: Tensor,  # [N, D]
    ) -> None:
        """Accumulates a batch of any floating-point type on any device; N may be 0.

        Raises:
            ValueError: if the vectors have another length, or are not finite.
        """
        if vectors.ndim != 2 or vectors.shape[1] != len(self.mean):
            raise ValueError(f"vectors are {tuple(vectors.shape)}: expected [N, {len(self.mean)}]")
        if len(vectors) == 0:
            return
        vectors = vectors.detach().cpu().double()
        if not vectors.isfinite().all():
            raise ValueError("vectors hold values that are not finite")
        mean = vectors.mean(dim=0)
        centred = vectors - mean
        self._add(len(vectors), mean, centred.T @ centred)

    def merge(self, other: "Moments") -> None:
        """Merges other moments. Raises ValueError if the lengths differ."""
        if self.mean.shape != other.mean.shape:
            raise ValueError(
                f"cannot merge moments of {len(self.mean)} and {len(other.mean)} dimensions"
            )
        if other.count:
            self._add(other.count, other.mean, other.scatter)

    def covariance(self) -> Tensor:
        """Computes the unbiased covariance [D, D]. Raises ValueError without two vectors."""
        if self.count < 2:
            raise ValueError(f"{self.count} vectors: a covariance needs two or more")
        return self.scatter / (self.count - 1)

    def _add(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        total = self.count + count
        step = mean - self.mean
        self.scatter = self.scatter + scatter + torch.outer(step, step) * self.count * count / total
        self.mean = self.mean + step * count / total
        self.count = total
