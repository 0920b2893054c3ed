"""Mean and covariance of a generator's codes, and a warning for edited codes far from them."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from clcae.stylegan2 import Generator
from editing.directions import Direction

logger = logging.getLogger(__name__)

BATCH = 10_000  # codes mapped at once
# Standard deviations. One in 16,000 normal codes lies farther out along a direction; farther codes
# are where a generator's pictures break and attributes no longer respond.
LIMIT = 4.0


@dataclass(frozen=True, eq=False)
class LatentStatistics:
    """First and second moments of W, or of given codes."""

    mean: Tensor  # [D], float64
    covariance: Tensor  # [D, D], float64, unbiased

    @classmethod
    def of_codes(cls, batches: Iterable[Tensor]) -> "LatentStatistics":
        """Computes the moments of codes [N_i, D] given in batches, with memory O(D^2).

        Every batch is centred before it is squared and merged by the parallel update of Chan et
        al. 1979, so that a large mean costs no digits.

        Raises:
            ValueError: if there are fewer than two codes, or codes have another shape or NaN.
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
        return cls(mean=mean, covariance=scatter / (count - 1))

    @classmethod
    def of_generator(
        cls, generator: Generator, *, num_samples: int = 10_000, seed: int = 0
    ) -> "LatentStatistics":
        """Computes the moments of W over mapped samples."""
        return cls.of_codes(mapped(generator, num_samples=num_samples, seed=seed))

    def deviation(
        self,
        vector: Tensor,  # [D], of any length but 0
    ) -> float:
        """Computes the standard deviation of the codes along a vector."""
        unit = vector.double().cpu() / vector.double().norm()
        return float((unit @ self.covariance @ unit).clamp_min(0).sqrt())

    def distances(
        self,
        direction: Direction,
        codes: Tensor,  # [N, L, D]
    ) -> Tensor:
        """Computes how far codes lie from the mean along a direction, in standard deviations: [N].

        The farthest of the rows that the direction moves counts. Along a vector on which the
        latent distribution has no width every distance is infinite, except 0.
        """
        farthest = torch.zeros(len(codes), dtype=torch.float64)
        by_row = len(direction.vector) == codes.shape[1]
        for row in range(codes.shape[1])[direction.rows_of(codes.shape[1])]:
            vector = direction.vector[row if by_row else 0].double()
            if not vector.any():
                continue
            offset = (codes[:, row].detach().cpu().double() - self.mean) @ (vector / vector.norm())
            distance = torch.where(offset == 0, offset, offset.abs() / self.deviation(vector))
            farthest = torch.maximum(farthest, distance)
        return farthest


class Watch:
    """Warns once for each direction if edited codes lie further from W's mean than before.

    `limit` is the number of standard deviations along the direction that pass without a warning.
    """

    def __init__(self, statistics: LatentStatistics, *, limit: float = LIMIT) -> None:
        self.statistics, self.limit = statistics, limit
        self._warned: set[str] = set()

    def __call__(self, direction: Direction, before: Tensor, after: Tensor) -> None:
        """Compares codes [N, L, D] before and after an edit; directions of Z are not checked."""
        if direction.name in self._warned or not direction.space.is_mapped:
            return
        distances = self.statistics.distances(direction, after)
        far = distances[distances > self.statistics.distances(direction, before) + 1e-3]
        if len(far) and float(far.max()) > self.limit:
            self._warned.add(direction.name)
            logger.warning(
                "%s: an edited code lies %.1f standard deviations of W from the mean along this "
                "direction (limit %g); expect artefacts, or take a smaller strength",
                direction.name,
                float(far.max()),
                self.limit,
            )


@torch.no_grad()
def mapped(generator: Generator, *, num_samples: int, seed: int) -> Iterator[Tensor]:
    """Yields codes of W [N_i, w_dim] of Gaussian z, in batches; the same for the same seed."""
    for _, w in samples(generator, num_samples=num_samples, seed=seed):
        yield w


@torch.no_grad()
def samples(
    generator: Generator, *, num_samples: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields Gaussian z [N_i, z_dim] and their w [N_i, w_dim], as `mapped`."""
    rng = torch.Generator().manual_seed(seed)
    for first in range(0, num_samples, BATCH):
        count = min(BATCH, num_samples - first)
        z = torch.randn(count, generator.z_dim, generator=rng).to(generator.w_average)
        yield z, generator.map(z)
