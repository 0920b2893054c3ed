"""Costs of a network: its parameters, the floating-point operations and the time of a call.

Operations are those that torch.utils.flop_counter counts: convolutions, also transposed ones,
matrix products and attention, a multiplication with its addition as 2. clcae.ops is made of those;
its CUDA kernel of the resampling filter and its Winograd form of the convolution count as what they
replace. Bias, activation, normalisation and interpolation are not counted, as in the tables of the
field, many of which count a multiplication with its addition as 1: halve before comparing.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from clcae.ops import kernels, winograd


def count_parameters(module: nn.Module) -> int:
    """Counts the parameters of a module; a shared one counts once, a borrowed one as its own."""
    return sum(parameter.numel() for parameter in module.parameters())


class _Whole:
    """Counts all operations as of one module.

    Torch's own tracker of modules hooks into gradients, which fails where a call takes gradients
    with respect to a leaf that it gives to a module, as optimised codes are given to the mapping.
    """

    parents = frozenset({"Global"})

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass


@torch.no_grad()
def count_operations(function: Callable[..., Any], *inputs: Any) -> int:
    """Counts the floating-point operations of the forward pass of a call.

    For operations per image hand it one image: those of a batch of N are not always N times as
    many.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_own_operators())
    counter.mod_tracker = _Whole()  # type: ignore[assignment]
    with counter, winograd.disabled():
        function(*inputs)
    return int(counter.get_total_flops())


def time_per_image(
    function: Callable[[Tensor], Any],
    images: Tensor,  # [N, 3, H, W]
    *,
    repeats: int = 10,
    warmup: int = 3,
) -> float:
    """Times a function of a batch of images; the device is waited for before each clock reading.

    The result is milliseconds per image: the median over `repeats`, divided by N. Kernels are built
    and chosen in the calls before them.

    Raises:
        ValueError: if there is no image, or no call.
    """
    if len(images) == 0 or repeats < 1:
        raise ValueError(f"{repeats} calls with {len(images)} images: nothing to time")
    for _ in range(warmup):
        function(images)
    seconds = []
    for _ in range(repeats):
        _synchronize(images.device)
        start = time.perf_counter()
        function(images)
        _synchronize(images.device)
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds) / len(images)


def timing_words(device: torch.device, *, batch: int) -> dict[str, str]:
    """Describes for a result row how `time_per_image` was taken."""
    cuda = device.type == "cuda"
    return {
        "direction": "lower",
        "batch": str(batch),
        "device": torch.cuda.get_device_name(device) if cuda else str(device),
        "threads": str(torch.get_num_threads()),
        "statistic": "median of 10 calls after 3",
    }


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _own_operators() -> dict[Any, Callable[..., int]]:
    """Maps our operators to their costs; empty where only references run."""
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
    """Counts the reference's convolution, or its transposed one where it enlarges."""
    taps = filter_shape[0] ** 2 if len(filter_shape) == 1 else math.prod(filter_shape)
    return 2 * taps * math.prod(shape if max(up) > 1 else out_shape)
