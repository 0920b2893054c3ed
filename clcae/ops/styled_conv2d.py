"""A layer of StyleGAN2's synthesis in bfloat16 or float16, for inference: no gradients.

What `modulated_conv2d` and `bias_act_` compute one after the other, in the types and the order that
cost least. Weights are prepared once in the layout and type of their convolution; norms of the
demodulation are computed in float32. A single picture has style and demodulation in its weights
wherever those are fewer than its activations, the bias in the convolution, and noise and leaky ReLU
in one pass over blocks that fit a processor's cache. In float16 magnitudes are bounded as by
`modulated_conv2d` and `SynthesisLayer` of stylegan2-ada-pytorch: weights and styles are divided by
their largest, activations are clamped.
"""

from collections.abc import Callable
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from clcae.ops import winograd
from clcae.ops.bias_act import DEFAULT_GAIN, LEAKY_SLOPE, bias_act_
from clcae.ops.conv2d_resample import Resample
from clcae.ops.modulated_conv2d import squared_norms
from clcae.ops.upfirdn2d import upfirdn2d

CLAMP = 256.0  # of float16: conv_clamp of stylegan2-ada-pytorch
BLOCK = 1 << 18  # numbers of a block: half of a cache of 1 MiB
GAIN = DEFAULT_GAIN["lrelu"]


class ReducedWeight:
    """Weights prepared for `styled_conv2d`, each form when it is first asked for."""

    def __init__(
        self,
        weight: Tensor,  # [C_out, C_in, K, K], float32
        resample: Resample,
        dtype: torch.dtype,
    ) -> None:
        self.weight, self.resample, self.dtype = weight.detach(), resample, dtype

    def takes_winograd(self, x: Tensor) -> bool:
        """Returns whether Winograd's form is taken for x, which is of `dtype`."""
        return self.resample == "none" and winograd.pays(self.weight) and winograd.takes(x)

    @cached_property
    def squares(self) -> Tensor:
        """Squared weights summed over the kernel, float32 [C_out, C_in]."""
        return squared_norms(self.weight)

    @cached_property
    def exact(self) -> Tensor:
        """The weights in float32, in the layout of the convolution."""
        return self._in_order(self.weight)

    @cached_property
    def exact_winograd(self) -> Tensor:
        """The weights in float32 for `winograd_conv2d`, [4 * C_out, C_in, 3, 1]."""
        return winograd.transformed(self.weight)

    @cached_property
    def largest(self) -> Tensor:
        """What `reduced` is divided by, float32 [C_out]."""
        most = self.weight.abs().amax(dim=(1, 2, 3)).clamp_min(torch.finfo(torch.float32).tiny)
        return most * self.weight[0].numel() ** 0.5

    @cached_property
    def reduced(self) -> Tensor:
        """The weights over `largest`, in type and layout of the convolution."""
        scaled = self.weight / self.largest[:, None, None, None]
        return self._in_order(scaled.to(self.dtype))

    @cached_property
    def reduced_winograd(self) -> Tensor:
        """The weights over `largest` for `winograd_conv2d`, in its type."""
        scaled = self.weight / self.largest[:, None, None, None]
        return winograd.transformed(scaled).to(self.dtype)

    def _in_order(self, weight: Tensor) -> Tensor:
        if self.resample == "none":
            return weight.contiguous(memory_format=torch.channels_last)
        # A transposed convolution reads its weights in the other order.
        weight = weight.transpose(0, 1).contiguous(memory_format=torch.channels_last)
        return weight.transpose(0, 1)


def styled_conv2d(
    x: Tensor,  # [N, C_in, H, W]
    weight: ReducedWeight,
    styles: Tensor,  # [N, C_in], float32, with the gain of the weights
    *,
    bias: Tensor,  # [C_out], float32
    noise: Tensor | None,  # [N or 1, 1, H', W'], float32, already scaled
    filter: Tensor,  # [T]
    activate: Callable[..., Tensor] = bias_act_,
) -> Tensor:
    """Computes lrelu(conv(x; w') + noise + bias) * sqrt(2), w' modulated and demodulated.

    Args:
        x: features, of any floating-point type.
        weight: prepared weights; their `dtype` is that of the result.
        styles: one scale a sample and input channel.
        bias: one value a channel.
        noise: one value a pixel; None: zero.
        filter: as in conv2d_resample.
        activate: `bias_act_`, or a compiled form of it.

    Returns:
        [N, C_out, H', W'].
    """
    dtype = weight.dtype
    x, bias = x.to(dtype), (bias * GAIN).to(dtype)
    noise = None if noise is None else (noise * GAIN).to(dtype)
    scales = torch.rsqrt(styles.square() @ weight.squares.T + 1e-8) * GAIN  # [N, C_out]
    fast = weight.takes_winograd(x)
    if goes_by_weight(x, weight):
        factors = scales[0, :, None, None, None] * styles[0, :, None, None]
        if fast:
            wide = weight.exact_winograd * factors.repeat(4, 1, 1, 1)
            y = winograd.winograd_conv2d(x, wide.to(dtype))
            return _finished(y, bias, noise, activate)
        y = _convolution(x, (weight.exact * factors).to(dtype), weight.resample, filter, bias)
        return _finished(y, None, noise, activate)
    most = styles.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    x = x * (styles / most).to(dtype)[:, :, None, None]
    if fast:
        y = winograd.winograd_conv2d(x, weight.reduced_winograd)
    else:
        y = _convolution(x, weight.reduced, weight.resample, filter, None)
    y.mul_((scales * most * weight.largest).to(dtype)[:, :, None, None])
    return _finished(y, bias, noise, activate)


def goes_by_weight(x: Tensor, weight: ReducedWeight) -> bool:
    """Returns whether style and demodulation are multiplied with the weights, not with x."""
    return len(x) == 1 and weight.weight.numel() < x.numel()


def _convolution(
    x: Tensor, weight: Tensor, resample: Resample, filter: Tensor, bias: Tensor | None
) -> Tensor:
    """Convolves as `conv2d_resample` does, "none" or "up", and adds the bias in the same pass."""
    padding = weight.shape[-1] // 2
    if resample == "none":
        return F.conv2d(x, weight, bias, padding=padding)
    x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    taps = filter.numel()
    if taps != 4 or x.is_cuda:
        kernel = weight.shape[-1]
        around = ((taps - kernel) // 2 + 1, (taps - kernel - 1) // 2 + 1)
        x = upfirdn2d(x, filter, padding=around, gain=4.0)
        return x if bias is None else x.add_(bias[:, None, None])
    taps_2d = (torch.outer(filter, filter) * 4.0).flip(0, 1).to(x.dtype)
    return F.conv2d(x, taps_2d.expand(x.shape[1], 1, 4, 4), bias, padding=1, groups=x.shape[1])


def _finished(
    x: Tensor, bias: Tensor | None, noise: Tensor | None, activate: Callable[..., Tensor]
) -> Tensor:
    """Adds bias and noise and activates in place; in float16 clamps."""
    if x.is_cuda or activate is not bias_act_:
        x = activate(x, bias, activation="lrelu", gain=1.0, noise=noise)
    else:
        _activate_in_blocks(x, bias, noise)
    return x.clamp_(-CLAMP, CLAMP) if x.dtype == torch.float16 else x


def _activate_in_blocks(x: Tensor, bias: Tensor | None, noise: Tensor | None) -> None:
    """Does all steps for some rows of pixels before it goes on to the next."""
    pixels = x.permute(0, 2, 3, 1)  # [N, H, W, C]
    maps = None if noise is None else noise.permute(0, 2, 3, 1).expand(len(x), -1, -1, -1)
    rows = max(BLOCK // max(pixels[0, 0].numel(), 1), 1)
    for sample in range(len(x)):
        for first in range(0, pixels.shape[1], rows):
            block = pixels[sample, first : first + rows]
            if bias is not None:
                block.add_(bias)
            if maps is not None:
                block.add_(maps[sample, first : first + rows])
            F.leaky_relu_(block, LEAKY_SLOPE)
