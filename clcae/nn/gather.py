"""All-gather with gradients."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def gather_rows(
    rows: Tensor,  # [N, ...], as many on every rank
) -> Tensor:
    """Concatenates the rows of all ranks, [ranks * N, ...]; one process gets `rows` back.

    The backward pass sums the gradients of a row over all ranks. If every rank minimises the same
    loss of all rows, averaging parameter gradients over the ranks gives that loss's exact gradient.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return rows
    gathered: Tensor = _Gather.apply(rows)
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        pieces = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(pieces, rows.contiguous())
        return torch.cat(pieces)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]
