"""Where the codes of a generator lie: mean and covariance, gathered in batches in float64."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from clcae.stylegan2 import Generator
from editing.directions import Direction

BATCH = 10_000  # codes mapped at once


@dataclass(frozen=True, eq=False)
class LatentStatistics:
    """First and second moments of W (or of whatever codes were given)."""

    mean: Tensor  # [D], float64
    covariance: Tensor  # [D, D], float64, unbiased
    count: int

    @classmethod
    def of_codes(cls, batches: Iterable[Tensor]) -> "LatentStatistics":
        """Moments of codes [N_i, D] that come in batches; memory O(D^2) whatever their number.

        Every batch is centred before it is squared and merged by the parallel update of Chan et
        al. 1979, so that a large mean costs no digits.

        Raises:
            ValueError: fewer than two codes, codes of another shape, or NaN.
        """
        count, mean, scatter = 0, torch.zeros(0).double(), torch.zeros(0, 0).double()
        for batch in batches:
            if batch.ndim != 2 or (count and batch.shape[1] != len(mean)):
                raise ValueError(f"codes have shape {tuple(batch.shape)}, expected [N, D]")
            codes = batch.detach().cpu().double()
            if not codes.isfinite().all():
                raise ValueError("codes hold NaN or infinity")
            if not len(codes):
                continue
            if not count:
                mean = torch.zeros(codes.shape[1]).double()
                scatter = torch.zeros(codes.shape[1], codes.shape[1]).double()
            new = codes.mean(dim=0)
            centred, gap = codes - new, new - mean
            total = count + len(codes)
            scatter += centred.T @ centred + torch.outer(gap, gap) * (count * len(codes) / total)
            mean += gap * (len(codes) / total)
            count = total
        if count < 2:
            raise ValueError(f"{count} codes, expected at least two")
        return cls(mean=mean, covariance=scatter / (count - 1), count=count)

    @classmethod
    def of_generator(
        cls, generator: Generator, *, num_samples: int = 10_000, seed: int = 0
    ) -> "LatentStatistics":
        """Moments of W over mapped samples."""
        return cls.of_codes(mapped(generator, num_samples=num_samples, seed=seed))

    def deviation(self, vector: Tensor) -> float:
        """The standard deviation of the codes along a vector [D] of any length but 0."""
        unit = vector.double().cpu() / vector.double().norm()
        return float((unit @ self.covariance @ unit).clamp_min(0).sqrt())

    def distances(
        self,
        direction: Direction,
        codes: Tensor,  # [N, L, D]
    ) -> Tensor:
        """How far codes lie from the mean along a direction, in standard deviations: [N].

        Of the rows that the direction moves the farthest counts. Along a vector on which the
        latent distribution has no width at all every distance is infinite, except 0.
        """
        rows = range(codes.shape[1])[direction.rows_of(codes.shape[1])]
        farthest = torch.zeros(len(codes), dtype=torch.float64)
        for row in rows:
            vector = direction.vector[
                row if len(direction.vector) == codes.shape[1] else 0
            ].double()
            if not vector.any():
                continue
            offset = (codes[:, row].detach().cpu().double() - self.mean) @ (vector / vector.norm())
            distance = torch.where(offset == 0, offset, offset.abs() / self.deviation(vector))
            farthest = torch.maximum(farthest, distance)
        return farthest


@torch.no_grad()
def mapped(generator: Generator, *, num_samples: int, seed: int) -> Iterator[Tensor]:
    """Codes of W [N_i, w_dim] of Gaussian z, in batches; the same for the same seed."""
    rng = torch.Generator().manual_seed(seed)
    for first in range(0, num_samples, BATCH):
        count = min(BATCH, num_samples - first)
        z = torch.randn(count, generator.z_dim, generator=rng)
        yield generator.map(z.to(generator.w_average))
