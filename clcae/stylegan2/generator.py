"""The generator: map, features, synthesize.

StyleGAN2 (Karras et al. 2020). An inversion method that changes a feature passes a function to
`synthesize`, or acts between `begin` and `finish`; none has a generator of its own.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clcae.precision import Precision
from clcae.serialization import register
from clcae.stylegan2.latents import broadcast_rows, truncate
from clcae.stylegan2.layer import Layer
from clcae.stylegan2.mapping import MappingNetwork
from clcae.stylegan2.synthesis import Noise, Prefix, SynthesisNetwork

PIXELS_AT_ONCE = 1 << 22


def channels_by_resolution(resolution: int, *, base: int, maximum: int) -> list[int]:
    """Computes channel counts from 4x4 up to `resolution`: min(base / side, maximum).

    Raises:
        ValueError: if the resolution is no power of two, 8 or more.
    """
    if resolution < 8 or resolution & (resolution - 1):
        raise ValueError(f"resolution is {resolution}, expected a power of two, 8 or more")
    sides = [4 << block for block in range(resolution.bit_length() - 2)]
    return [min(base // side, maximum) for side in sides]


def record_channels(
    *, resolution: int, channel_base: int, channel_max: int, **settings: Any
) -> dict[str, Any]:
    """Replaces base and maximum by channel counts in the recorded settings."""
    counts = channels_by_resolution(resolution, base=channel_base, maximum=channel_max)
    return {"resolution": resolution, **settings, "channels": settings["channels"] or counts}


@register("stylegan2_generator", resolve=record_channels)
class Generator(nn.Module):
    """Mapping and synthesis networks of any resolution, channel counts and width of z and w."""

    w_average: Tensor

    def __init__(
        self,
        *,
        resolution: int,
        z_dim: int = 512,
        w_dim: int = 512,
        mapping_layers: int = 8,
        mapping_dim: int | None = None,  # None: w_dim
        mapping_lr_multiplier: float = 0.01,  # Karras et al. 2019, appendix C
        channel_base: int = 32768,  # config F
        channel_max: int = 512,
        channels: Sequence[int] | None = None,  # from 4x4 up; None: from base and maximum
    ) -> None:
        super().__init__()
        counts = channels_by_resolution(resolution, base=channel_base, maximum=channel_max)
        if channels is not None and len(channels) != len(counts):
            raise ValueError(
                f"{len(channels)} channel counts for resolution {resolution}, "
                f"expected {len(counts)}: one for each of 4, 8, ..., {resolution}"
            )
        self.channels = list(channels) if channels is not None else counts
        self.resolution, self.z_dim, self.w_dim = resolution, z_dim, w_dim
        self.mapping = MappingNetwork(
            z_dim=z_dim,
            w_dim=w_dim,
            num_layers=mapping_layers,
            hidden_dim=mapping_dim,
            lr_multiplier=mapping_lr_multiplier,
        )
        self.synthesis = SynthesisNetwork(w_dim=w_dim, channels=self.channels)
        self.register_buffer("w_average", torch.zeros(w_dim))

    @property
    def num_layers(self) -> int:
        """Number of styled convolutions: 17 at 1024."""
        return self.synthesis.num_layers

    @property
    def num_codes(self) -> int:
        """Number of rows of a W+ code: 2 log2(resolution) - 2, 18 at 1024."""
        return self.num_layers + 1

    @property
    def at_once(self) -> int:
        """Batch size that fits into some GiB without gradients: 4 at 1024."""
        return max(PIXELS_AT_ONCE // self.resolution**2, 1)

    @property
    def precision(self) -> Precision:
        """In which the synthesis computes what autograd does not record."""
        return self.synthesis.precision

    def for_inference(self, precision: Precision) -> "Generator":
        """Returns a frozen copy that shares all weights and synthesizes in a precision.

        Pictures and features are float32 in either. Where gradients are asked for, of codes or
        features, everything is computed in float32.
        """
        shared: dict[int, Any] = {id(tensor): tensor for tensor in self.buffers()}
        for parameter in self.parameters():
            shared[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
        other = copy.deepcopy(self, shared)
        other.synthesis.precision = precision
        return other

    def layer(self, name: str | int | Layer) -> Layer:
        """Parses the name of a layer. Raises ValueError if this generator lacks it."""
        layer = Layer.parse(name)
        if layer.index >= self.num_layers:
            last = Layer(self.num_layers - 1)
            raise ValueError(f"layer {layer} is not in this generator, its last one is {last}")
        return layer

    def feature_shape(self, layer: Layer) -> tuple[int, int, int]:
        """Returns (C, R, R), the shape of the feature at `layer`."""
        return (self.channels[layer.block], layer.resolution, layer.resolution)

    def map(
        self,
        z: Tensor,  # [N, z_dim], or rows of Z+ [N, L, z_dim]
        *,
        truncation: float = 1.0,
        truncated_rows: int | None = None,
    ) -> Tensor:
        """Maps z to codes of W, or rows of Z+ to codes of W+.

        Args:
            z: Gaussian codes; the mapping network normalises them.
            truncation: psi; 1 changes nothing.
            truncated_rows: number of first rows to truncate (ADA's truncation_cutoff); None: all.

        Returns:
            [N, w_dim] for z [N, z_dim]; [N, L, w_dim] for rows, or when `truncated_rows` is given.
        """
        self._check(z, self.z_dim, "z")
        w = self.mapping(z)
        if truncated_rows is not None:
            w = broadcast_rows(w, self.num_codes)
        return truncate(w, self.w_average, truncation, num_rows=truncated_rows)

    def begin(self, codes: Tensor, layer: Layer, *, noise: Noise = "const") -> Prefix:
        """Runs the synthesis network up to `layer`; codes are [N, D] or [N, L, D]."""
        return self.synthesis.begin(self._rows(codes), layer, noise)

    def finish(self, prefix: Prefix, codes: Tensor, *, noise: Noise = "const") -> Tensor:
        """Runs the layers after `prefix`, which read the rows after its layer: [N, 3, H, W]."""
        return self.synthesis.finish(prefix, self._rows(codes), noise)

    def features(self, codes: Tensor, layer: Layer, *, noise: Noise = "const") -> Tensor:
        """Computes the feature [N, C, R, R] at `layer`; codes are [N, D] or [N, L, D]."""
        return self.begin(codes, layer, noise=noise).feature

    def synthesize(
        self,
        codes: Tensor,  # [N, w_dim] or [N, L, w_dim]
        *,
        at: tuple[Layer, Callable[[Tensor], Tensor]] | None = None,
        keep_skip: bool = True,
        noise: Noise = "const",
    ) -> Tensor:
        """Synthesizes pictures of W or W+ codes, optionally with one feature changed.

        Args:
            codes: latent codes; W codes are used for every layer.
            at: (layer, function of the feature [N, C, R, R]); the function acts after the to-RGB of
                its layer, whose own RGB stays (as in CLCAE and StyleRes); None: no change.
            keep_skip: keep the RGB of the layers up to `at`; False drops it (F/Z+).
            noise: "const" (the generator's own maps), "random", "none", or one map a layer.

        Returns:
            [N, 3, H, W], about [-1, 1], not clamped.
        """
        if at is None:
            return self.finish(self.begin(codes, Layer(0), noise=noise), codes, noise=noise)
        layer, function = at
        prefix = self.begin(codes, layer, noise=noise)
        prefix = Prefix(layer, function(prefix.feature), prefix.rgb if keep_skip else None)
        return self.finish(prefix, codes, noise=noise)

    @torch.no_grad()
    def update_average(self, *, num_samples: int = 100_000, seed: int = 0) -> None:
        """Sets `w_average` to the mean w of samples, as official files store it."""
        rng, total = torch.Generator().manual_seed(seed), torch.zeros(self.w_dim).double()
        for first in range(0, num_samples, 10_000):
            count = min(10_000, num_samples - first)
            z = torch.randn(count, self.z_dim, generator=rng).to(self.w_average.device)
            total += self.mapping(z).double().sum(dim=0).cpu()
        self.w_average.copy_((total / num_samples).float())

    def _rows(self, codes: Tensor) -> Tensor:
        self._check(codes, self.w_dim, "codes")
        return broadcast_rows(codes, self.num_codes)

    def _check(self, codes: Tensor, width: int, name: str) -> None:
        if codes.shape[-1] != width:
            raise ValueError(
                f"{name} has shape {tuple(codes.shape)}, expected {width} columns: "
                f"this generator has z of {self.z_dim} and w of {self.w_dim}"
            )


def style_mixing(
    first: Tensor,  # [N, w_dim]
    second: Tensor,  # [N, w_dim]
    *,
    num_rows: int,
    crossover: int | Tensor,  # one row, or one for each picture [N]
) -> Tensor:
    """Mixes styles (Karras et al. 2019, section 3.1): [N, L, w_dim].

    Rows before `crossover` are those of the first codes, the others those of the second.
    """
    rows = torch.arange(num_rows, device=first.device)
    at = torch.as_tensor(crossover, device=first.device).reshape(-1, 1)
    keep = (rows < at)[..., None]
    return torch.where(keep, first[:, None], second[:, None])
