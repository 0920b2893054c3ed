"""StyleGAN2's synthesis network as its paper states it, one plain operation after the other.

Karras et al. 2020: section 2.2, equations 1-3 (every sample has its own weights, applied as one
grouped convolution), figure 7 (output skips), appendix B (resampling: insert zeros, pad, filter).
Tensors are contiguous [N, C, H, W], filters two-dimensional and dense, nothing is fused or shared.
Modules bear the names of `clcae.stylegan2.SynthesisNetwork`, whose weights they load as they are.

The filter is written in two ways. `filtered` convolves every channel as a picture of its own, as
the field's code without CUDA does; `filtered_by_groups` is one depthwise convolution, which oneDNN
runs about five times as fast on a CPU.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clcae.stylegan2 import Generator

TAPS = (1.0, 3.0, 3.0, 1.0)  # appendix B
Noise = str | Sequence[Tensor]  # "const", "random", "none", or one map a layer
Fir = Callable[[Tensor, Tensor, tuple[int, int]], Tensor]


def square_kernel() -> Tensor:
    """Returns the low-pass filter in two dimensions, [4, 4], of sum 1."""
    taps = torch.tensor(TAPS)
    kernel = taps[:, None] * taps[None, :]
    return kernel / kernel.sum()


def insert_zeros(
    x: Tensor,  # [N, C, H, W]
) -> Tensor:
    """Inserts a zero after every row and every column: [N, C, 2H, 2W]."""
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels, height, 1, width, 1)
    x = F.pad(x, (0, 1, 0, 0, 0, 1))
    return x.reshape(batch, channels, 2 * height, 2 * width)


def filtered(
    x: Tensor,  # [N, C, H, W]
    kernel: Tensor,  # [T, T]
    padding: tuple[int, int],  # zeros before and after, on both axes
) -> Tensor:
    """Convolves every channel, as a picture of its own, with the kernel: [N, C, H', W']."""
    batch, channels, height, width = x.shape
    x = F.pad(x.reshape(batch * channels, 1, height, width), (*padding, *padding))
    x = F.conv2d(x, kernel.flip(0, 1)[None, None])
    return x.reshape(batch, channels, *x.shape[2:])


def filtered_by_groups(x: Tensor, kernel: Tensor, padding: tuple[int, int]) -> Tensor:
    """Computes `filtered` as one depthwise convolution."""
    channels = x.shape[1]
    weight = kernel.flip(0, 1)[None, None].repeat(channels, 1, 1, 1)
    return F.conv2d(F.pad(x, (*padding, *padding)), weight, groups=channels)


def upsampled(
    x: Tensor,  # [N, C, H, W]
    kernel: Tensor,  # [4, 4]
    fir: Fir = filtered,
) -> Tensor:
    """Enlarges twofold; the gain of 4 makes up for the zeros."""
    return fir(insert_zeros(x), 4.0 * kernel, (2, 1))


def modulated_weights(
    weight: Tensor,  # [O, I, K, K]
    styles: Tensor,  # [N, I]
    demodulate: bool,
) -> Tensor:
    """Computes the weights of every sample, [N, O, I, K, K]: equations 1 and 3."""
    weights = weight[None] * styles[:, None, :, None, None]
    if demodulate:
        norms = torch.sqrt(weights.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8)
        weights = weights / norms
    return weights


def modulated_convolution(
    x: Tensor,  # [N, I, H, W]
    weight: Tensor,  # [O, I, K, K]
    styles: Tensor,  # [N, I]
    *,
    demodulate: bool,
) -> Tensor:
    """Convolves every sample, as a group, with its own weights: [N, O, H, W]."""
    batch, _, height, width = x.shape
    weights = modulated_weights(weight, styles, demodulate).flatten(0, 1)
    x = x.reshape(1, -1, height, width)
    x = F.conv2d(x, weights, padding=weight.shape[-1] // 2, groups=batch)
    return x.reshape(batch, -1, height, width)


def modulated_convolution_up(
    x: Tensor,  # [N, I, H, W]
    weight: Tensor,  # [O, I, 3, 3]
    styles: Tensor,  # [N, I]
    kernel: Tensor,  # [4, 4]
    fir: Fir = filtered,
) -> Tensor:
    """Applies the transposed convolution of stride 2, then the filter: [N, O, 2H, 2W]."""
    batch, _, height, width = x.shape
    weights = modulated_weights(weight, styles, True).transpose(1, 2).flatten(0, 1)
    x = x.reshape(1, -1, height, width)
    x = F.conv_transpose2d(x, weights, stride=2, groups=batch)
    x = x.reshape(batch, -1, 2 * height + 1, 2 * width + 1)
    return fir(x, 4.0 * kernel, (1, 1))


class Affine(nn.Module):
    """Linear layer from w to styles, with equalised weights."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, w: Tensor) -> Tensor:
        return F.linear(w, self.weight / math.sqrt(self.weight.shape[1]), self.bias)


class StyledLayer(nn.Module):
    """Styled layer: convolution, noise, bias, leaky ReLU, gain, one operation each."""

    noise: Tensor
    kernel: Tensor

    def __init__(
        self, inputs: int, outputs: int, w_dim: int, resolution: int, enlarges: bool, fir: Fir
    ) -> None:
        super().__init__()
        self.enlarges = enlarges
        self.fir = fir
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        self.affine = Affine(w_dim, inputs)
        self.bias = nn.Parameter(torch.empty(outputs))
        self.noise_strength = nn.Parameter(torch.empty([]))
        self.register_buffer("noise", torch.empty(1, 1, resolution, resolution))
        self.register_buffer("kernel", square_kernel(), persistent=False)

    def forward(self, x: Tensor, w: Tensor, noise: str | Tensor) -> Tensor:
        weight = self.weight / math.sqrt(self.weight[0].numel())
        styles = self.affine(w)
        if self.enlarges:
            x = modulated_convolution_up(x, weight, styles, self.kernel, self.fir)
        else:
            x = modulated_convolution(x, weight, styles, demodulate=True)
        if noise == "const":
            noise = self.noise
        elif noise == "random":
            noise = torch.randn(len(x), 1, *x.shape[2:], device=x.device, dtype=x.dtype)
        if isinstance(noise, Tensor):
            x = x + self.noise_strength * noise
        x = x + self.bias[None, :, None, None]
        x = F.leaky_relu(x, 0.2)
        return x * math.sqrt(2.0)


class ToRGBLayer(nn.Module):
    """To-RGB layer: a 1x1 convolution, modulated, not demodulated."""

    def __init__(self, inputs: int, w_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3, inputs, 1, 1))
        self.affine = Affine(w_dim, inputs)
        self.bias = nn.Parameter(torch.empty(3))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        weight = self.weight / math.sqrt(self.weight[0].numel())
        x = modulated_convolution(x, weight, self.affine(w), demodulate=False)
        return x + self.bias[None, :, None, None]


class TextbookSynthesis(nn.Module):
    """Synthesis network from w or W+ codes, always computed from the constant to the end."""

    kernel: Tensor

    def __init__(self, *, channels: Sequence[int], w_dim: int, fir: Fir = filtered) -> None:
        super().__init__()
        self.fir = fir
        self.const = nn.Parameter(torch.empty(channels[0], 4, 4))
        self.layers = nn.ModuleList()
        self.to_rgbs = nn.ModuleList()
        for block, outputs in enumerate(channels):
            resolution, inputs = 4 << block, channels[max(block - 1, 0)]
            if block:
                self.layers.append(StyledLayer(inputs, outputs, w_dim, resolution, True, fir))
            self.layers.append(StyledLayer(outputs, outputs, w_dim, resolution, False, fir))
            self.to_rgbs.append(ToRGBLayer(outputs, w_dim))
        self.register_buffer("kernel", square_kernel(), persistent=False)

    @classmethod
    def of(cls, generator: Generator, *, fir: Fir = filtered) -> "TextbookSynthesis":
        """Builds the network with copies of a generator's weights, on its device."""
        textbook = cls(channels=generator.channels, w_dim=generator.w_dim, fir=fir)
        textbook.load_state_dict(generator.synthesis.state_dict())
        return textbook.to(generator.synthesis.const.device).eval()

    def features(self, codes: Tensor, last: int, *, noise: Noise = "const") -> Tensor:
        """Computes the feature [N, C, R, R] after the styled layer number `last`."""
        x = self._start(codes)
        for index in range(last + 1):
            given = noise if isinstance(noise, str) else noise[index]
            x = self.layers[index](x, self._row(codes, index), given)
        return x

    def forward(
        self,
        codes: Tensor,  # [N, w_dim] or [N, L, w_dim]
        *,
        noise: Noise = "const",
        replaced: tuple[int, Tensor] | None = None,  # a styled layer, and its feature from outside
    ) -> Tensor:
        """Computes pictures [N, 3, H, W]; a replaced feature enters behind its layer's to-RGB."""
        x, rgb = self._start(codes), None
        for index, layer in enumerate(self.layers):
            given = noise if isinstance(noise, str) else noise[index]
            x = layer(x, self._row(codes, index), given)
            if index % 2 == 0:
                painted = self.to_rgbs[index // 2](x, self._row(codes, index + 1))
                rgb = painted if rgb is None else upsampled(rgb, self.kernel, self.fir) + painted
            if replaced is not None and index == replaced[0]:
                x = replaced[1]
        assert rgb is not None
        return rgb

    def _start(self, codes: Tensor) -> Tensor:
        return self.const[None].repeat(len(codes), 1, 1, 1)

    def _row(self, codes: Tensor, index: int) -> Tensor:
        return codes if codes.ndim == 2 else codes[:, index]
