"""Noise, bias, activation, gain and clamp in one operator.

StyleGAN2 (Karras et al. 2020), appendix B. Matches `fused_leaky_relu` of stylegan2-pytorch
(activation "lrelu", its default gain) and `bias_act` of stylegan2-ada-pytorch ("linear", "lrelu").
On a GPU it is one fused kernel (csrc/bias_act.h) where that can be built.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from clcae.ops import kernels

Activation = Literal["linear", "lrelu"]

LEAKY_SLOPE = 0.2

# The gain that keeps the variance of a unit normal input near one.
DEFAULT_GAIN: dict[str, float] = {"linear": 1.0, "lrelu": math.sqrt(2.0)}


def bias_act(
    x: Tensor,  # [N, C, ...], or any shape with the channels at `dim`
    bias: Tensor | None = None,  # [C]
    *,
    activation: Activation = "linear",
    gain: float | None = None,
    clamp: float | None = None,
    dim: int = 1,
    noise: Tensor | None = None,  # [N or 1, 1, H, W] where x is [N, C, H, W]
) -> Tensor:
    """Computes clamp(gain * activation(x + noise + bias)), of the shape of `x`.

    Args:
        x: input.
        bias: one value a channel; None: zero.
        activation: "linear", or "lrelu" with slope 0.2.
        gain: factor after the activation; None: the activation's default (1, sqrt 2).
        clamp: limits the result to [-clamp, clamp]; None: no limit.
        dim: axis of the channels.
        noise: one value a pixel, already scaled, shared by the channels; None: zero.

    Returns:
        A tensor of the type to which `x`, bias and noise promote.

    Raises:
        ValueError: if the activation is unknown, or the shape of bias or noise does not fit.
    """
    _check(x, bias, activation, dim, noise)
    gain = DEFAULT_GAIN[activation] if gain is None else gain
    changes = bias is not None or noise is not None or activation != "linear"
    if (changes or gain != 1.0 or clamp is not None) and kernels.usable(x):
        return _bias_act_kernel(x, bias, noise, activation, gain, clamp, dim % x.ndim)
    return bias_act_reference(x, bias, noise, activation, gain, clamp, dim % x.ndim)


def bias_act_(
    x: Tensor,  # [N, C, ...]
    bias: Tensor | None = None,  # [C]
    *,
    activation: Activation = "linear",
    gain: float | None = None,
    noise: Tensor | None = None,  # [N or 1, 1, H, W] where x is [N, C, H, W]
) -> Tensor:
    """In-place variant of `bias_act`; may overwrite `x`, also while autograd records.

    On a CPU allocating the result costs more than all the arithmetic. The gain must be positive: it
    is applied before the activation, whose result autograd keeps.
    """
    if kernels.usable(x):
        return bias_act(x, bias, activation=activation, gain=gain, noise=noise)
    _check(x, bias, activation, 1, noise)
    gain = DEFAULT_GAIN[activation] if gain is None else gain
    if noise is not None:
        x = _add_(x, noise)
    if bias is not None:
        x = _add_(x, bias.reshape([-1, *[1] * (x.ndim - 2)]))
    assert gain > 0.0, gain
    x = x if gain == 1.0 else x.mul_(gain)
    return F.leaky_relu_(x, LEAKY_SLOPE) if activation == "lrelu" else x


def _add_(x: Tensor, term: Tensor) -> Tensor:
    """Adds in place, unless the sum has a wider type."""
    return x.add_(term) if torch.promote_types(x.dtype, term.dtype) == x.dtype else x + term


def _check(x: Tensor, bias: Tensor | None, activation: str, dim: int, noise: Tensor | None) -> None:
    if activation not in DEFAULT_GAIN:
        raise ValueError(f"activation is {activation!r}, expected one of {list(DEFAULT_GAIN)}")
    if bias is not None and bias.shape != x.shape[dim : dim + 1 or None]:
        raise ValueError(
            f"bias has shape {tuple(bias.shape)}, expected ({x.shape[dim]},) for axis {dim}"
        )
    if noise is not None and not _fits(noise, x, dim):
        raise ValueError(
            f"noise has shape {tuple(noise.shape)}, expected one map or one a sample, "
            f"[N or 1, 1, H, W], for {tuple(x.shape)} with channels at axis {dim}"
        )


def _fits(noise: Tensor, x: Tensor, dim: int) -> bool:
    if x.ndim != 4 or noise.ndim != 4 or dim % x.ndim != 1:
        return False
    return noise.shape[0] in (1, x.shape[0]) and noise.shape[1:] == (1, *x.shape[2:])


def bias_act_reference(
    x: Tensor,  # [N, C, ...], or any shape with the channels at `dim`
    bias: Tensor | None,  # [C]
    noise: Tensor | None,  # [N or 1, 1, H, W]
    activation: Activation,
    gain: float,
    clamp: float | None,
    dim: int,
) -> Tensor:
    """Defines `bias_act` in torch's own operators, for every device."""
    if noise is not None:
        x = x + noise
    if bias is not None:
        x = x + bias.reshape([-1 if axis == dim else 1 for axis in range(x.ndim)])
    if activation == "lrelu":
        x = F.leaky_relu(x, LEAKY_SLOPE)
    if gain != 1.0:
        x = x * gain
    if clamp is not None:
        x = torch.clamp(x, -clamp, clamp)
    return x


def _bias_act_kernel(
    x: Tensor,
    bias: Tensor | None,
    noise: Tensor | None,
    activation: Activation,
    gain: float,
    clamp: float | None,
    dim: int,
) -> Tensor:
    from clcae.ops import library

    dtype = x.dtype
    for other in (bias, noise):
        dtype = dtype if other is None else torch.promote_types(dtype, other.dtype)
    bias, noise = (other if other is None else other.to(dtype) for other in (bias, noise))
    slope = LEAKY_SLOPE if activation == "lrelu" else 1.0
    return library.bias_act(x.to(dtype), bias, noise, dim, slope, float(gain), clamp)
