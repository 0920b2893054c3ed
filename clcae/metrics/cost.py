"""What a network costs: its parameters, and the floating-point operations of a call.

Operations are those that torch.utils.flop_counter counts: convolutions, also transposed ones,
matrix products and attention, a multiplication with its addition as 2. clcae.ops is made of those;
its CUDA kernel of the resampling filter and its Winograd form of the convolution count as what they
replace. Bias, activation, normalisation and interpolation are not counted, as in the tables of the
field, many of which count a multiplication with its addition as 1: halve before comparing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from clcae.ops import kernels, winograd


@dataclass(frozen=True)
class ParameterCount:
    """How many numbers a module holds; what it shares with itself counts once."""

    total: int
    trainable: int
    buffers: int


@dataclass(frozen=True)
class OperationCount:
    """Floating-point operations of one call."""

    total: int
    by_operator: Mapping[str, int] = field(default_factory=dict)  # "convolution": ..., "mm": ...


def count_parameters(module: nn.Module) -> ParameterCount:
    """Parameters of a module, those that require gradients, and numbers in buffers.

    A part that a method borrows from another one, as a generator, counts as its own.
    """
    parameters = list(module.parameters())  # a shared parameter is listed once
    return ParameterCount(
        total=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        buffers=sum(b.numel() for b in module.buffers()),
    )


@torch.no_grad()
def count_operations(function: Callable[..., Any], *inputs: Any) -> OperationCount:
    """Floating-point operations of a call, whose result is thrown away.

    Args:
        function: What is called: a module, or a method's invert and synthesize in one.
        inputs: Its arguments. For operations per image hand it one image: those of a batch of N
            are not always N times as many.

    Returns:
        Operations of the forward pass, in total and by operator of ATen.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_own_operators())
    with counter, winograd.disabled():
        function(*inputs)
    by_operator = {
        str(operator).removeprefix("aten.").removeprefix("clcae."): int(count)
        for operator, count in counter.get_flop_counts().get("Global", {}).items()
    }
    return OperationCount(total=int(counter.get_total_flops()), by_operator=by_operator)


def _own_operators() -> dict[Any, Callable[..., int]]:
    """What an operator of ours costs, by operator; none where only references run."""
    kernels.ready()  # registers them
    operator = getattr(torch.ops.clcae, "upfirdn2d", None)
    return {} if operator is None else {operator: _resampling_operations}


def _resampling_operations(
    shape: Sequence[int],  # of the input
    filter_shape: Sequence[int],  # [T] for both axes, or [T_y, T_x]
    up: Sequence[int],
    *_: Any,
    out_shape: Sequence[int],
    **__: Any,
) -> int:
    """As the reference's convolution, or its transposed one where it enlarges."""
    taps = filter_shape[0] ** 2 if len(filter_shape) == 1 else math.prod(filter_shape)
    return 2 * taps * math.prod(shape if max(up) > 1 else out_shape)
