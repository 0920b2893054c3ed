"""Layers with equalised learning rate: weights are unit normal and scaled at run time.

Karras et al. 2018, section 4.1; `EqualLinear` and `EqualConv2d` of stylegan2-pytorch,
`FullyConnectedLayer` and `Conv2dLayer` of stylegan2-ada-pytorch.
"""

import math

import torch
from torch import Tensor, nn

from clcae.ops import bias_act_, conv2d_resample, low_pass
from clcae.ops.bias_act import DEFAULT_GAIN, Activation
from clcae.ops.conv2d_resample import Resample


class EqualizedLinear(nn.Module):
    """Fully connected layer with the effective weight weight * lr_multiplier / sqrt(inputs)."""

    weight_gain: float

    def __init__(
        self,
        *,
        in_features: int,
        out_features: int,
        bias_init: float = 0.0,  # effective value, before training
        lr_multiplier: float = 1.0,
        activation: Activation = "linear",
    ) -> None:
        super().__init__()
        self.activation = activation
        self.lr_multiplier = lr_multiplier
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full([out_features], bias_init / lr_multiplier))

    def forward(self, x: Tensor) -> Tensor:
        """Maps [..., in_features] to [..., out_features]."""
        rows = x.reshape(x.shape[:-1].numel(), x.shape[-1])
        # (bias * lr_multiplier) + x @ (weight * weight_gain), without a copy of the weight
        rows = torch.addmm(
            self.bias, rows, self.weight.T, beta=self.lr_multiplier, alpha=self.weight_gain
        )
        rows = bias_act_(rows, activation=self.activation)
        return rows.reshape(*x.shape[:-1], rows.shape[-1])


class EqualizedConv2d(nn.Module):
    """Convolution with optional FIR resampling, bias and activation."""

    filter: Tensor

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        resample: Resample = "none",
        bias: bool = True,
        activation: Activation = "linear",
        gain: float = 1.0,  # times the activation's default gain
    ) -> None:
        super().__init__()
        self.resample = resample
        self.activation = activation
        self.gain = gain
        self.weight_gain = 1.0 / math.sqrt(in_channels * kernel_size**2)
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.weight = nn.Parameter(torch.randn(shape))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.register_buffer("filter", low_pass(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, in_channels, H, W] to [N, out_channels, H', W']."""
        weight = self.weight * self.weight_gain
        x = conv2d_resample(x, weight, resample=self.resample, filter=self.filter)
        gain = self.gain * DEFAULT_GAIN[self.activation]
        return bias_act_(x, self.bias, activation=self.activation, gain=gain)
