"""Reservoir sample of vectors for metrics that need all pairs, in bounded memory.

What is kept does not depend on batches, on order or on how parts were merged: every vector has a
rank, a hash of where it lies, and where there are more than `maximum` vectors those of lowest rank
stay. The hash reads few and coarse coordinates, so that the last bits of a feature, which change
with the batch size of a network, rarely change the rank; it is a random sample all the same.
Neither comes from a paper.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

DEFAULT_MAXIMUM = 10_000  # 80 MB of float32 features of length 2048
NUM_COORDINATES = 4  # on fixed directions, beside the logarithm of the length
CELL = 2.0**-12  # width of a coordinate's cells, for vectors of length one; rounding is about 1e-7


@dataclass(frozen=True)
class Kept:
    """Vectors with the keys that rank and order them."""

    vectors: Tensor  # [M, D]
    ranks: Tensor  # [M], int64: which of them stay
    heights: Tensor  # [M], float64, along one direction: in which order they are read

    def __len__(self) -> int:
        return len(self.ranks)

    def __getitem__(self, places: Tensor) -> "Kept":
        return Kept(self.vectors[places], self.ranks[places], self.heights[places])


class Reservoir:
    """Keeps a sample of at most `maximum` of the vectors taken in, on the CPU.

    Twice as many are held for a time, while they come in.
    """

    def __init__(self, *, dimension: int, maximum: int = DEFAULT_MAXIMUM) -> None:
        if dimension < 1 or maximum < 1:
            raise ValueError(f"{maximum} vectors of length {dimension}: expected 1 or more")
        self.dimension = dimension
        self.maximum = maximum
        self.count = 0  # of vectors taken in
        self._parts: list[Kept] = []
        self._held = 0
        generator = torch.Generator().manual_seed(0)
        directions = torch.randn(
            NUM_COORDINATES, dimension, dtype=torch.float64, generator=generator
        )
        self._directions = directions / directions.norm(dim=1, keepdim=True)

    def update(
        self,
        vectors: Tensor,  # [N, D]
    ) -> None:
        """Accumulates a batch; half precision is kept as float32, anything else as it is.

        Raises:
            ValueError: if the vectors have another length, or are not finite.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise ValueError(f"vectors are {tuple(vectors.shape)}: expected [N, {self.dimension}]")
        vectors = vectors.detach().cpu()
        # Copied, because a caller may fill the same memory again.
        vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32), copy=True)
        if not vectors.isfinite().all():
            raise ValueError("vectors hold values that are not finite")
        self.count += len(vectors)
        if len(vectors):
            self._add(self._ordered(vectors))

    def merge(self, other: "Reservoir") -> None:
        """Merges another reservoir. Raises ValueError if lengths or maxima differ."""
        if (self.dimension, self.maximum) != (other.dimension, other.maximum):
            raise ValueError(
                f"cannot merge {self.maximum} vectors of length {self.dimension} with "
                f"{other.maximum} of length {other.dimension}"
            )
        self.count += other.count
        if other.count:
            self._add(other._compact())

    def vectors(self) -> Tensor:
        """Returns the vectors kept [M, D], float64; M is the lesser of `count` and `maximum`.

        Their order, along a fixed direction, does not depend on how they came in either.
        """
        if self.count == 0:
            return torch.zeros(0, self.dimension, dtype=torch.float64)
        kept = self._compact()
        return kept.vectors[kept.heights.argsort(stable=True)].double()

    def _ordered(self, vectors: Tensor) -> Kept:
        """Computes rank and height of each vector, independently of the others."""
        coordinates = torch.stack(
            [(vectors.double() * direction).sum(dim=1) for direction in self._directions], dim=1
        )
        lengths = vectors.double().norm(dim=1, keepdim=True).clamp(min=1e-30)
        place = torch.cat([coordinates / lengths, lengths.log()], dim=1)
        cells = (place / CELL).floor().long()
        ranks = torch.tensor([_hash(row) for row in cells], dtype=torch.int64)
        return Kept(vectors, ranks, coordinates[:, 0])

    def _add(self, part: Kept) -> None:
        self._parts.append(part)
        self._held += len(part)
        if self._held > 2 * self.maximum:
            self._compact()

    def _compact(self) -> Kept:
        """Joins all parts and cuts them to the maximum."""
        if len(self._parts) > 1 or self._held > self.maximum:
            whole = Kept(
                torch.cat([part.vectors for part in self._parts]),
                torch.cat([part.ranks for part in self._parts]),
                torch.cat([part.heights for part in self._parts]),
            )
            whole = whole[whole.heights.argsort(stable=True)]  # among equal ranks
            self._parts = [whole[whole.ranks.argsort(stable=True)[: self.maximum]]]
            self._held = len(self._parts[0])
        return self._parts[0]


def _hash(row: Tensor) -> int:
    """Returns 63 bits of a hash of integers."""
    digest = hashlib.blake2b(row.numpy().tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
