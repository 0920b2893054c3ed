"""The skip synthesis network g: W+ -> image.

StyleGAN2 (Karras et al. 2020), figure 7 "output skips"; `Generator` of stylegan2-pytorch,
`SynthesisNetwork` of stylegan2-ada-pytorch. It runs in two parts, `begin` up to a layer and
`finish` from there, so that methods can change a feature in between, and two pictures can share the
first part. Deviation: ADA's float16 blocks and convolution clamp are left
out; they change nothing in float32 within the clamp of 256.
"""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from clcae.nn.equalized import EqualizedLinear
from clcae.nn.rows import normal_like
from clcae.ops import bias_act_, low_pass, modulated_conv2d, upsample2d
from clcae.ops.bias_act import DEFAULT_GAIN
from clcae.ops.conv2d_resample import Resample
from clcae.ops.modulated_conv2d import Prepared, prepared
from clcae.stylegan2.layer import Layer

NoiseMode = Literal["const", "random", "none"]
Noise = NoiseMode | Sequence[Tensor]  # a mode, or one map [N or 1, 1, R, R] a layer


@dataclass(frozen=True)
class Prefix:
    """State of the synthesis network after one layer (and its to-RGB, if it ends a block)."""

    layer: Layer
    feature: Tensor  # [N, C, R, R]
    rgb: Tensor | None  # [N, 3, R or R/2, R or R/2]; None drops the RGB of lower resolutions


class _FrozenTerms:
    """Caches terms computed from frozen weights; recomputed when a weight changes."""

    def __init__(self) -> None:
        self._weight: Callable[[], Tensor | None] = lambda: None
        self._key: tuple[Any, ...] | None = None
        self._value: Prepared | None = None

    def of(self, weight: Tensor, resample: Resample) -> Prepared | None:
        """Returns the terms; None if the weight trains, or while a compiler traces."""
        if torch.compiler.is_compiling() or weight.requires_grad or weight.is_inference():
            return None
        key = (weight.data_ptr(), weight._version, weight.device, weight.dtype)
        if self._weight() is not weight or self._key != key:
            with torch.inference_mode(False), torch.no_grad():  # autograd may use it later
                self._value = prepared(weight, resample)
            self._weight, self._key = weakref.ref(weight), key
        return self._value

    def __reduce__(self) -> tuple[Any, ...]:
        return _FrozenTerms, ()  # a copied layer starts with an empty cache


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
        self._frozen = _FrozenTerms()
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
            frozen=self._frozen.of(self.weight, self.resample),
            gain=gain,
        )
        given: Tensor | None = None
        if isinstance(noise, Tensor):
            given = noise * (self.noise_strength * gain)
        elif noise == "const":
            given = self.noise * (self.noise_strength * gain)
        elif noise == "random":
            given = normal_like(x[:, :1]) * (self.noise_strength * gain)
        return self.activate(x, self.bias * gain, activation="lrelu", gain=1.0, noise=given)


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
        return self._run(x, None, codes, 0, layer.index, noise)

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
        for index in range(first, last + 1):
            layer = Layer(index)
            given: NoiseMode | Tensor = noise if isinstance(noise, str) else noise[index]
            x = self.layers[index](x, codes[:, index], given)
            if layer.ends_block:
                painted = self.to_rgbs[layer.block](x, codes[:, index + 1])
                rgb = painted if rgb is None else upsample2d(rgb, self.filter) + painted
        return Prefix(layer=Layer(last), feature=x, rgb=rgb)
