"""Registers the CUDA kernels as torch.library operators, with shapes and derivatives.

Imported only when the kernels are loaded. `csrc/library.cpp` implements the operators for CUDA; the
compiler takes shapes and derivatives from here. Derivatives consist of the same operators and of
sums, so that they are differentiable again.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("clcae", "DEF")
_TAGS = (torch.Tag.pt2_compliant_tag,)
_LIBRARY.define(
    "bias_act(Tensor x, Tensor? bias, Tensor? noise, int dim, float slope, float gain, "
    "float? clamp) -> Tensor",
    tags=_TAGS,
)
_LIBRARY.define(
    "bias_act_backward(Tensor grad, Tensor result, float slope, float gain, float? clamp) "
    "-> Tensor",
    tags=_TAGS,
)
_LIBRARY.define(
    "upfirdn2d(Tensor x, Tensor filter, int[] up, int[] down, SymInt[] padding, float gain, "
    "bool flip) -> Tensor",
    tags=_TAGS,
)


def bias_act(
    x: Tensor,  # [N, C, ...], or any shape with the channels at `dim`
    bias: Tensor | None,  # [C], of the type of x
    noise: Tensor | None,  # [N or 1, 1, H, W], of the type of x
    dim: int,  # not negative
    slope: float,  # for negative values; 1 is the linear activation
    gain: float,
    clamp: float | None,
) -> Tensor:
    """Computes clamp(gain * leaky(x + noise + bias)), of the shape of x.

    Deviation from the reference in the derivative: a result exactly at the clamp passes no
    gradient, because the derivative is computed from the result alone.
    """
    result: Tensor = torch.ops.clcae.bias_act(x, bias, noise, dim, slope, gain, clamp)
    return result


def upfirdn2d(
    x: Tensor,  # [N, C, H, W]
    filter: Tensor,  # float32 (float64 beside float64): [T] for both axes, or [T_y, T_x]
    up: Sequence[int],  # vertical, horizontal
    down: Sequence[int],
    padding: Sequence[int],  # top, bottom, left, right; negative crops
    gain: float,
    flip: bool,  # False: a convolution (taps reversed); True: a correlation
) -> Tensor:
    """Up-samples by zeros, pads, filters, decimates: [N, C, H', W']; any number of taps."""
    result: Tensor = torch.ops.clcae.upfirdn2d(x, filter, up, down, padding, gain, flip)
    return result


def _layout(x: Tensor, dim: int = 1) -> torch.memory_format:
    """Returns channels_last if x is in that layout only, as library.cpp does."""
    last = torch.channels_last
    if x.ndim == 4 and dim == 1 and x.is_contiguous(memory_format=last) and not x.is_contiguous():
        return last
    return torch.contiguous_format


def _bias_act_shape(x: Tensor, bias: Any, noise: Any, dim: int, *_: Any) -> Tensor:
    return torch.empty_like(x, memory_format=_layout(x, dim))


def _bias_act_backward_shape(grad: Tensor, result: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(result, memory_format=_layout(result))


def _upfirdn2d_shape(
    x: Tensor,
    filter: Tensor,
    up: Sequence[int],
    down: Sequence[int],
    padding: Sequence[int],
    *_: Any,
) -> Tensor:
    samples, channels, height, width = x.shape
    high = (height * up[0] + padding[0] + padding[1] - filter.shape[0]) // down[0] + 1
    wide = (width * up[1] + padding[2] + padding[3] - filter.shape[-1]) // down[1] + 1
    shape = (samples, channels, high, wide)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=_layout(x))


def _bias_act_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, _, noise, ctx.dim, ctx.slope, ctx.gain, ctx.clamp = inputs
    ctx.noise_shape = None if noise is None else noise.shape
    # For a linear activation without clamp the derivative is the gain.
    ctx.straight = ctx.slope == 1.0 and ctx.clamp is None
    ctx.save_for_backward(*([] if ctx.straight else [output]))


def _bias_act_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    if ctx.straight:
        grad = grad * ctx.gain
    else:
        (result,) = ctx.saved_tensors
        grad = torch.ops.clcae.bias_act_backward(grad, result, ctx.slope, ctx.gain, ctx.clamp)
    of_x, of_bias, of_noise, *_ = ctx.needs_input_grad
    others = [axis for axis in range(grad.ndim) if axis != ctx.dim]
    return (
        grad if of_x else None,
        (grad.sum(others) if others else grad) if of_bias else None,
        grad.sum_to_size(ctx.noise_shape) if of_noise else None,
        *[None] * 4,
    )


def _bias_act_backward_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, result, ctx.slope, ctx.gain, ctx.clamp = inputs
    ctx.save_for_backward(result)


def _bias_act_backward_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (result,) = ctx.saved_tensors
    # Linear in its first argument; in its second it is piecewise constant.
    again = torch.ops.clcae.bias_act_backward(grad, result, ctx.slope, ctx.gain, ctx.clamp)
    return again, None, None, None, None


def _upfirdn2d_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, filter, ctx.up, ctx.down, ctx.padding, ctx.gain, ctx.flip = inputs
    ctx.sizes = (*x.shape[2:], *output.shape[2:])
    ctx.save_for_backward(filter)


def _upfirdn2d_gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    if ctx.needs_input_grad[1]:
        raise RuntimeError("the kernel has no derivative with respect to its filter")
    (filter,) = ctx.saved_tensors
    padding = []
    for axis in (0, 1):
        taps, before = filter.shape[0 if axis == 0 else -1], ctx.padding[2 * axis]
        given, made = ctx.sizes[axis] * ctx.up[axis], ctx.sizes[2 + axis] * ctx.down[axis]
        padding += [taps - 1 - before, given - made + before - ctx.up[axis] + 1]
    back = torch.ops.clcae.upfirdn2d(
        grad, filter, ctx.down, ctx.up, padding, ctx.gain, not ctx.flip
    )
    return back, *[None] * 6


for _name, _shape, _context, _gradients in (
    ("bias_act", _bias_act_shape, _bias_act_context, _bias_act_gradients),
    (
        "bias_act_backward",
        _bias_act_backward_shape,
        _bias_act_backward_context,
        _bias_act_backward_gradients,
    ),
    ("upfirdn2d", _upfirdn2d_shape, _upfirdn2d_context, _upfirdn2d_gradients),
):
    torch.library.register_fake(f"clcae::{_name}", _shape, lib=_LIBRARY)
    torch.library.register_autograd(
        f"clcae::{_name}", _gradients, setup_context=_context, lib=_LIBRARY
    )
