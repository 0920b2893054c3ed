"""The residual discriminator with minibatch deviation.

StyleGAN2 (Karras et al. 2020), figure 7 "residual nets"; `Discriminator` of stylegan2-pytorch and
of stylegan2-ada-pytorch (unconditional, architecture "resnet").
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clcae.construction import require_positive
from clcae.nn.equalized import EqualizedConv2d, EqualizedLinear
from clcae.serialization import register
from clcae.stylegan2.generator import channels_by_resolution, record_channels


def append_minibatch_deviation(
    x: Tensor,  # [N, C, H, W]
    group_size: int,
) -> Tensor:
    """Appends the mean deviation of each group as a channel (Karras et al. 2018, section 3).

    A group has min(group_size, N) members, N / group apart, as in both official codes.

    Raises:
        ValueError: if N is no multiple of the group.
    """
    group = min(group_size, len(x))
    if len(x) % group:
        raise ValueError(f"batch of {len(x)} is no multiple of the minibatch group {group}")
    grouped = x.reshape(group, -1, *x.shape[1:])
    deviation = (grouped.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    plane = deviation.repeat(group)[:, None, None, None].expand(-1, 1, *x.shape[2:])
    return torch.cat([x, plane], dim=1)


class ResidualBlock(nn.Module):
    """Halves the resolution: two 3x3 convolutions and a 1x1 skip."""

    def __init__(self, *, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = math.sqrt(0.5)  # preserves the variance of the sum
        self.conv0 = EqualizedConv2d(
            in_channels=in_channels, out_channels=in_channels, kernel_size=3, activation="lrelu"
        )
        self.conv1 = EqualizedConv2d(
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=3,
            resample="down",
            activation="lrelu",
            gain=half,
        )
        self.skip = EqualizedConv2d(
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=1,
            resample="down",
            bias=False,
            gain=half,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, R, R] to [N, C', R/2, R/2]."""
        return self.conv1(self.conv0(x)) + self.skip(x)


@register("stylegan2_discriminator", resolve=record_channels)
class Discriminator(nn.Module):
    """Classifies images as real (high logit) or generated."""

    def __init__(
        self,
        *,
        resolution: int,
        channel_base: int = 32768,  # config F
        channel_max: int = 512,
        channels: Sequence[int] | None = None,  # from 4x4 up; None: from base and maximum
        group_size: int = 4,  # of the minibatch deviation
    ) -> None:
        super().__init__()
        counts = channels_by_resolution(resolution, base=channel_base, maximum=channel_max)
        counts = list(channels) if channels is not None else counts
        require_positive(group_size=group_size)
        self.group_size = group_size
        self.from_rgb = EqualizedConv2d(
            in_channels=3, out_channels=counts[-1], kernel_size=1, activation="lrelu"
        )
        self.blocks = nn.ModuleList(
            ResidualBlock(in_channels=high, out_channels=low)
            for high, low in zip(counts[:0:-1], counts[-2::-1], strict=True)
        )
        self.conv = EqualizedConv2d(
            in_channels=counts[0] + 1, out_channels=counts[0], kernel_size=3, activation="lrelu"
        )
        self.linear = EqualizedLinear(
            in_features=counts[0] * 16, out_features=counts[0], activation="lrelu"
        )
        self.out = EqualizedLinear(in_features=counts[0], out_features=1)

    def forward(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]
    ) -> Tensor:
        """Returns logits [N, 1]."""
        x = self.from_rgb(images.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x)
        x = self.conv(append_minibatch_deviation(x, self.group_size))
        return self.out(self.linear(x.flatten(1)))
