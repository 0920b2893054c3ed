"""Noise, bias, activation, gain and clamp in one operator.

StyleGAN2 (Karras et al. 2020), appendix B. Matches `fused_leaky_relu` of stylegan2-pytorch
(activation "lrelu", its default gain) and `bias_act` of stylegan2-ada-pytorch ("linear", "lrelu").
On a GPU one kernel of our own does it all (csrc/bias_act.h) where it can be built.
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
    """clamp(gain * activation(x + noise + bias)).

    Args:
        x: the input.
        bias: one value a channel; None adds nothing.
        activation: "linear", or "lrelu" with slope 0.2.
        gain: factor after the activation; None means the activation's own (1, sqrt 2).
        clamp: values end up within [-clamp, clamp]; None means no limit.
        dim: the axis of the channels.
        noise: one value a pixel, at its strength, the same for all channels; None adds nothing.

    Returns:
        A tensor of the shape of `x`, of the type that the sum of the inputs has.

    Raises:
        ValueError: an unknown activation, or a bias or noise that does not fit.
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
    """`bias_act` of what nobody else needs: `x` may be overwritten, also while gradients are kept.

    On a CPU new memory is slower than all the arithmetic here. The gain is positive: it acts before
    the activation, whose result autograd keeps.
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
    """In place, unless the sum is of a wider type."""
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
    """`bias_act` in torch's own operators: what defines it, on every device."""
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

    dtype = x.dtype  # as a sum of the three would have it
    for other in (bias, noise):
        dtype = dtype if other is None else torch.promote_types(dtype, other.dtype)
    bias, noise = (other if other is None else other.to(dtype) for other in (bias, noise))
    slope = LEAKY_SLOPE if activation == "lrelu" else 1.0
    return library.bias_act(x.to(dtype), bias, noise, dim, slope, float(gain), clamp)
