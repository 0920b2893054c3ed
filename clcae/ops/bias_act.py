"""Bias, activation, gain and clamp in one operator.

StyleGAN2 (Karras et al. 2020), appendix B. Matches `fused_leaky_relu` of stylegan2-pytorch
(activation "lrelu", its default gain) and `bias_act` of stylegan2-ada-pytorch ("linear", "lrelu").
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

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
) -> Tensor:
    """clamp(gain * activation(x + bias)).

    Args:
        x: the input.
        bias: one value a channel; None adds nothing.
        activation: "linear", or "lrelu" with slope 0.2.
        gain: factor after the activation; None means the activation's own (1, sqrt 2).
        clamp: values end up within [-clamp, clamp]; None means no limit.
        dim: the axis of the channels.

    Returns:
        A tensor of the shape of `x`.

    Raises:
        ValueError: an unknown activation, or a bias that does not fit the channels.
    """
    if activation not in DEFAULT_GAIN:
        raise ValueError(f"activation is {activation!r}, expected one of {list(DEFAULT_GAIN)}")
    if bias is not None:
        if bias.shape != x.shape[dim : dim + 1 or None]:
            raise ValueError(
                f"bias has shape {tuple(bias.shape)}, expected ({x.shape[dim]},) for axis {dim}"
            )
        x = x + bias.reshape([-1 if axis == dim % x.ndim else 1 for axis in range(x.ndim)])
    if activation == "lrelu":
        x = F.leaky_relu(x, LEAKY_SLOPE)
    gain = DEFAULT_GAIN[activation] if gain is None else gain
    if gain != 1.0:
        x = x * gain
    if clamp is not None:
        x = torch.clamp(x, -clamp, clamp)
    return x
