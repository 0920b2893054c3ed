"""Draws random numbers by row of a batch that is divided among processes and micro batches.

Each holds some rows, is seeded like the others, draws for all rows and keeps its own. So the
numbers of a row do not depend on how the batch is divided.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class _Rows:
    first: int
    count: int
    total: int

    def shared(self, size: int) -> tuple[int, slice]:
        """Scales total and own rows to a tensor of `size` rows, such as half of the batch."""
        first = self.first * size // self.count
        return self.total * size // self.count, slice(first, first + size)


_rows: _Rows | None = None  # no context variable: backward passes recompute in other threads


@contextmanager
def rows_of_batch(rows: slice, *, total: int) -> Iterator[None]:
    """Says which rows of a batch of `total` rows tensors hold within the block."""
    global _rows
    count = rows.stop - rows.start
    former, _rows = _rows, _Rows(rows.start, count, total) if count < total else None
    try:
        yield
    finally:
        _rows = former


def normal_like(
    x: Tensor,  # [N, ...]
) -> Tensor:
    """Draws standard-normal numbers of the shape of x from torch's global generator."""
    if _rows is None:
        return torch.randn_like(x)
    total, own = _rows.shared(len(x))
    return torch.randn(total, *x.shape[1:], dtype=x.dtype, device=x.device)[own]


def dropout(
    x: Tensor,  # [N, ...]
    p: float,
    training: bool,
) -> Tensor:
    """Drops entries as torch.nn.functional.dropout does."""
    if _rows is None or not training or not p:
        return F.dropout(x, p, training)
    total, own = _rows.shared(len(x))
    ones = torch.ones(total, *x.shape[1:], dtype=x.dtype, device=x.device)
    return x * F.dropout(ones, p)[own]


class Dropout(nn.Dropout):
    """torch.nn.Dropout that draws by row."""

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p, self.training)
