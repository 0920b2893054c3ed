"""The skip synthesis network g: W+ -> image.

StyleGAN2 (Karras et al. 2020), figure 7 "output skips"; `Generator` of stylegan2-pytorch,
`SynthesisNetwork` of stylegan2-ada-pytorch. It runs in two parts, `begin` up to a layer and
`finish` from there, so that methods can change a feature in between, and two pictures can share the
first part. Deviation: ADA's convolution clamp is left out in float32, where it changes nothing
within its 256; ADA's float16 blocks are those of precision "bfloat16" on CUDA, for inference alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clcae.nn.equalized import EqualizedLinear
from clcae.nn.rows import normal_like
from clcae.ops import bias_act_, low_pass, modulated_conv2d, upsample2d
from clcae.ops.bias_act import DEFAULT_GAIN
from clcae.ops.conv2d_resample import Resample
from clcae.ops.modulated_conv2d import prepared
from clcae.ops.styled_conv2d import ReducedWeight, goes_by_weight, styled_conv2d
from clcae.precision import Precision
from clcae.stylegan2.frozen_terms import FrozenTerms
from clcae.stylegan2.layer import Layer

NoiseMode = Literal["const", "random", "none"]
Noise = NoiseMode | Sequence[Tensor]  # a mode, or one map [N or 1, 1, R, R] a layer

NUM_FLOAT16 = 4  # highest resolutions in float16 on CUDA: num_fp16_res of stylegan2-ada-pytorch


@dataclass(frozen=True)
class Prefix:
    """State of the synthesis network after one layer (and its to-RGB, if it ends a block)."""

    layer: Layer
    feature: Tensor  # [N, C, R, R]
    rgb: Tensor | None  # [N, 3, R or R/2, R or R/2]; None drops the RGB of lower resolutions


class StyledConv(nn.Module):
    """Modulated 3x3 convolution with noise, bias and leaky ReLU."""

    noise: Tensor
    filter: Tensor

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,  # of the output
        resample: Resample,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.weight_gain = (in_channels * 9) ** -0.5
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.affine = EqualizedLinear(in_features=w_dim, out_features=in_channels, bias_init=1.0)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.activate: Callable[..., Tensor] = bias_act_
        self._frozen = FrozenTerms()
        self.register_buffer("noise", torch.randn(1, 1, resolution, resolution))
        self.register_buffer("filter", low_pass(), persistent=False)

    def forward(
        self,
        x: Tensor,  # [N, C_in, R', R']
        row: Tensor,  # [N, w_dim]
        noise: NoiseMode | Tensor,
    ) -> Tensor:
        """Returns [N, C_out, R, R]."""
        # Leaky ReLU is homogeneous: its gain is applied to styles, noise and bias, which are small.
        gain = DEFAULT_GAIN["lrelu"]
        x = modulated_conv2d(
            x,
            self.weight,
            self.affine(row) * self.weight_gain,
            resample=self.resample,
            filter=self.filter,
            frozen=self._frozen.of(self.weight, prepared, self.resample),
            gain=gain,
        )
        given = self._scaled(noise, x[:, :1], self.noise_strength * gain)
        return self.activate(x, self.bias * gain, activation="lrelu", gain=1.0, noise=given)

    def reduced_weight(self, dtype: torch.dtype) -> ReducedWeight:
        """Returns the weights as `reduced` takes them."""
        found = self._frozen.of(self.weight, ReducedWeight, self.resample, dtype)
        return ReducedWeight(self.weight, self.resample, dtype) if found is None else found

    def reduced(
        self,
        x: Tensor,  # [N, C_in, R', R']
        row: Tensor,  # [N, w_dim]
        noise: NoiseMode | Tensor,
        weight: ReducedWeight,
    ) -> Tensor:
        """Computes what `forward` does without gradients, in the type of the weight."""
        like = self.noise.expand(len(x), -1, -1, -1)
        return styled_conv2d(
            x,
            weight,
            self.affine(row) * self.weight_gain,
            bias=self.bias,
            noise=self._scaled(noise, like, self.noise_strength),
            filter=self.filter,
            activate=self.activate,
        )

    def _scaled(self, noise: NoiseMode | Tensor, like: Tensor, strength: Tensor) -> Tensor | None:
        """Computes what is added to every channel, [N or 1, 1, R, R]."""
        if isinstance(noise, Tensor):
            return noise * strength
        if noise == "const":
            return self.noise * strength
        return normal_like(like) * strength if noise == "random" else None


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to RGB, without demodulation."""

    def __init__(self, *, in_channels: int, w_dim: int) -> None:
        super().__init__()
        self.weight_gain = in_channels**-0.5
        self.weight = nn.Parameter(torch.randn(3, in_channels, 1, 1))
        self.affine = EqualizedLinear(in_features=w_dim, out_features=in_channels, bias_init=1.0)
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, row: Tensor) -> Tensor:
        """Maps [N, C, R, R] to [N, 3, R, R]."""
        styles = self.affine(row) * self.weight_gain
        return bias_act_(modulated_conv2d(x, self.weight, styles, demodulate=False), self.bias)

    def reduced(self, x: Tensor, row: Tensor) -> Tensor:
        """Computes what `forward` does from half precision; the result is float32."""
        weight = self.weight * (self.affine(row) * self.weight_gain)[:, None, :, None, None]
        rgb = [F.conv2d(x[n : n + 1], w) for n, w in enumerate(weight.to(x.dtype))]
        return torch.cat(rgb).float() + self.bias[:, None, None]


class SynthesisNetwork(nn.Module):
    """Styled convolutions from a constant input; RGB is added up over the resolutions."""

    filter: Tensor

    def __init__(
        self,
        *,
        w_dim: int,
        channels: Sequence[int],  # one count for each resolution, from 4x4 up
    ) -> None:
        super().__init__()
        self.num_layers = 2 * len(channels) - 1
        self.precision: Precision = "float32"  # of what autograd does not record
        self.const = nn.Parameter(torch.randn(channels[0], 4, 4))
        self.layers = nn.ModuleList()
        self.to_rgbs = nn.ModuleList()
        for index in range(self.num_layers):
            layer = Layer(index)
            enters = index % 2 == 1  # the first layer of a block doubles the resolution
            self.layers.append(
                StyledConv(
                    in_channels=channels[layer.block - 1 if enters else layer.block],
                    out_channels=channels[layer.block],
                    w_dim=w_dim,
                    resolution=layer.resolution,
                    resample="up" if enters else "none",
                )
            )
            if layer.ends_block:
                self.to_rgbs.append(ToRGB(in_channels=channels[layer.block], w_dim=w_dim))
        self.register_buffer("filter", low_pass(), persistent=False)

    def begin(
        self,
        codes: Tensor,  # [N, L, w_dim]
        layer: Layer,
        noise: Noise = "const",
    ) -> Prefix:
        """Runs the layers from the constant input up to `layer`."""
        x = self.const[None].expand(len(codes), -1, -1, -1)
        x = x.contiguous(memory_format=torch.channels_last)  # 2 to 3 times faster on a CPU
        prefix = self._run(x, None, codes, 0, layer.index, noise)
        return replace(prefix, feature=prefix.feature.to(self.const.dtype))

    def finish(
        self,
        prefix: Prefix,
        codes: Tensor,  # [N, L, w_dim]
        noise: Noise = "const",
    ) -> Tensor:
        """Runs the layers after `prefix`; returns the picture [N, 3, H, W]."""
        first, last = prefix.layer.index + 1, self.num_layers - 1
        rgb = self._run(prefix.feature, prefix.rgb, codes, first, last, noise).rgb
        assert rgb is not None, "the last layer ends a block"
        return rgb

    def _run(
        self, x: Tensor, rgb: Tensor | None, codes: Tensor, first: int, last: int, noise: Noise
    ) -> Prefix:
        if self.precision == "bfloat16" and not self._records(x, rgb, codes):
            x = x.contiguous(memory_format=torch.channels_last)
            return self._run_reduced(x, rgb, codes, first, last, noise)
        for index in range(first, last + 1):
            layer = Layer(index)
            given: NoiseMode | Tensor = noise if isinstance(noise, str) else noise[index]
            x = self.layers[index](x, codes[:, index], given)
            if layer.ends_block:
                painted = self.to_rgbs[layer.block](x, codes[:, index + 1])
                rgb = painted if rgb is None else upsample2d(rgb, self.filter) + painted
        return Prefix(layer=Layer(last), feature=x, rgb=rgb)

    def _run_reduced(
        self, x: Tensor, rgb: Tensor | None, codes: Tensor, first: int, last: int, noise: Noise
    ) -> Prefix:
        """Does what `_run` does in bfloat16 or float16, but for the RGB, without gradients."""
        layers = cast("Sequence[StyledConv]", self.layers)
        to_rgbs = cast("Sequence[ToRGB]", self.to_rgbs)
        for index in range(first, last + 1):
            layer = Layer(index)
            given: NoiseMode | Tensor = noise if isinstance(noise, str) else noise[index]
            weight = layers[index].reduced_weight(self._reduced_type(layer, x.device))
            if len(x) > 1 and not x.is_cuda and goes_by_weight(x[:1], weight):
                return self._run_each(x, rgb, codes, index, last, noise)
            x = layers[index].reduced(x, codes[:, index], given, weight)
            if layer.ends_block:
                painted = to_rgbs[layer.block].reduced(x, codes[:, index + 1])
                rgb = painted if rgb is None else upsample2d(rgb, self.filter) + painted
        return Prefix(layer=Layer(last), feature=x, rgb=rgb)

    def _run_each(
        self, x: Tensor, rgb: Tensor | None, codes: Tensor, first: int, last: int, noise: Noise
    ) -> Prefix:
        """Runs sample by sample, where that saves passes over the activations."""
        parts = []
        for row in range(len(x)):
            own = slice(row, row + 1)
            kept = (
                noise if isinstance(noise, str) else [m if len(m) == 1 else m[own] for m in noise]
            )
            below = None if rgb is None else rgb[own]
            parts.append(self._run_reduced(x[own], below, codes[own], first, last, kept))
        rgbs = [part.rgb for part in parts if part.rgb is not None]
        feature = torch.cat([part.feature for part in parts])
        return Prefix(Layer(last), feature, torch.cat(rgbs) if rgbs else None)

    def _reduced_type(self, layer: Layer, device: torch.device) -> torch.dtype:
        highest = self.to_rgbs[layer.block : layer.block + NUM_FLOAT16 + 1]
        is_float16 = device.type == "cuda" and len(highest) <= NUM_FLOAT16
        return torch.float16 if is_float16 else torch.bfloat16

    def _records(self, x: Tensor, rgb: Tensor | None, codes: Tensor) -> bool:
        """Returns whether autograd records what is computed of these."""
        given = (x, codes) if rgb is None else (x, rgb, codes)
        return torch.is_grad_enabled() and any(
            tensor.requires_grad for tensor in (*given, *self.parameters())
        )
