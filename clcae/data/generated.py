"""Latents z by index, for what is measured on pictures of a method's own generator."""

from collections.abc import Sequence

import torch
from torch import Tensor

from clcae.data.sources import checked_indices

_SEEDS = 1_000_003  # indices of one seed


class GeneratedCodes:
    """Latents z in the place of pictures: whoever reads them generates their pictures.

    Args:
        dimension: of z.
        num_codes: how many.
        seed: of all draws; latent i depends on it and on i alone.

    Raises:
        ValueError: if a number is not positive.
    """

    def __init__(self, *, dimension: int, num_codes: int = 512, seed: int = 0) -> None:
        if dimension < 1 or not 1 <= num_codes < _SEEDS:
            raise ValueError(
                f"dimension is {dimension}, num_codes is {num_codes}: expected 1 to {_SEEDS - 1}"
            )
        self.dimension, self.num_codes, self.seed = dimension, num_codes, seed

    def __len__(self) -> int:
        return self.num_codes

    def images(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Draws z as [N, 1, 1, dimension], standard normal. Raises IndexError."""
        rows = [
            torch.randn(
                (1, 1, self.dimension),
                generator=torch.Generator().manual_seed(self.seed * _SEEDS + index),
            )
            for index in checked_indices(indices, len(self)).tolist()
        ]
        return torch.stack(rows) if rows else torch.zeros(0, 1, 1, self.dimension)

    def name(self, index: int) -> str:
        """Names a picture in reports: "generated/00042"."""
        return f"generated/{index:05d}"
