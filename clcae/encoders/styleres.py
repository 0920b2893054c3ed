"""E1 and E2 of StyleRes: the residual of the generator's feature, and what an edit makes of it.

"StyleRes: Transforming the Residuals for Real Image Editing with StyleGAN" (arXiv 2212.14359, CVPR
2023), section 3; the `modify_feature_*` modules that the official generator has in its 64x64 block.
E1 aligns the skip feature of e4e with the generator's own feature of the unedited codes and
extracts the residual. E2 turns the residual into what is added to the feature of the codes at hand,
which may be edited ones. All convolutions are plain: neither normalised nor modulated.

The paper adds the output of E2 as it is (`ResidualTransform`); the official code weighs it with a
gate between 0 and 1 for every pixel (`GatedTransform`). `NoTransform` and `SkipResidual` are the
paper's ablations without E2 and without E1. Deviations: any resolution, any number of channels, and
a width of its own; a skip feature that is not square is padded with zeros.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clcae.encoders.pyramid import made_square

Fusion = Literal["sum", "gate", "none"]
Source = Literal["e1", "skip"]


class ResidualBlock(nn.Module):
    """3x3 convolution, leaky ReLU (0.2), 3x3 convolution; with a shortcut."""

    def __init__(self, *, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.conv0 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv1 = nn.Conv2d(out_channels, out_channels, 3, stride, padding=1)
        self.shortcut: nn.Conv2d | None = None
        if in_channels != out_channels or stride != 1:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] to [N, C', H / stride, W / stride]."""
        # Subsamples before the 1x1 shortcut, as the trunk does and for the same reason.
        kept = x[:, :, :: self.stride, :: self.stride]
        shortcut = kept if self.shortcut is None else self.shortcut(kept)
        return self.conv1(F.leaky_relu(self.conv0(x), 0.2)) + shortcut


def _residual_blocks(channels: int, count: int, out_channels: int | None = None) -> nn.Sequential:
    """Builds blocks of which the last may have another number of output channels."""
    widths = [channels] * count + [channels if out_channels is None else out_channels]
    return nn.Sequential(
        *(
            ResidualBlock(in_channels=before, out_channels=after)
            for before, after in pairwise(widths)
        )
    )


class FeatureAlignment(nn.Module):
    """A U-Net over three resolutions, of one width."""

    def __init__(self, *, in_channels: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, width, 1)
        self.down = nn.ModuleList([_residual_blocks(width, 1)])
        for _ in range(2):
            halving = ResidualBlock(in_channels=width, out_channels=width, stride=2)
            self.down.append(nn.Sequential(halving, *_residual_blocks(width, 1)))
        self.up = nn.ModuleList(_residual_blocks(width, 2) for _ in range(2))
        self.last = nn.Conv2d(width, width, 1)

    def forward(
        self,
        x: Tensor,  # [N, C, R, R]
    ) -> Tensor:
        """Computes [N, width, R, R]."""
        x = self.first(x)
        outputs = []
        for blocks in self.down:
            x = blocks(x)
            outputs.append(x)
        for blocks, finer in zip(self.up, outputs[-2::-1], strict=True):
            size = finer.shape[2:]
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=True) + finer
            x = blocks(x)
        return self.last(x)


class ResidualEncoder(nn.Module):
    """E1: the residual of an image, from e4e's skip feature and the generator's own feature."""

    def __init__(self, *, skip_channels: int, feature_channels: int, width: int) -> None:
        super().__init__()
        self.alignment = FeatureAlignment(in_channels=skip_channels + feature_channels, width=width)
        self.extraction = nn.Sequential(nn.Conv2d(width, width, 1), *_residual_blocks(width, 3))

    def forward(
        self,
        skip: Tensor,  # [N, S, h, w], of the image; the longer side is R
        own: Tensor,  # [N, C, R, R], the generator's feature of the unedited codes
    ) -> Tensor:
        """Computes the residual F_a [N, width, R, R]."""
        return self.extraction(self.alignment(torch.cat([made_square(skip), own], dim=1)))


class SkipResidual(nn.Module):
    """The ablation without E1: the skip feature itself is the residual, which E2 reads."""

    def __init__(self, *, skip_channels: int, feature_channels: int, width: int) -> None:
        super().__init__()

    def forward(self, skip: Tensor, own: Tensor) -> Tensor:
        """Returns the skip feature as a square [N, S, R, R]."""
        return made_square(skip)


SOURCES: dict[Source, Callable[..., nn.Module]] = {"e1": ResidualEncoder, "skip": SkipResidual}


@dataclass(frozen=True)
class Injection:
    """The feature that the generator goes on with, and what it is made of."""

    feature: Tensor  # [N, C, R, R]
    delta: Tensor  # [N, C, R, R], the output of E2 before any gate
    gate: Tensor | None = None  # [N, 1, R, R], in [0, 1]


class ResidualTransform(nn.Module):
    """E2 with the paper's plain sum: own + delta."""

    def __init__(self, *, feature_channels: int, residual_channels: int, width: int) -> None:
        super().__init__()
        half = width // 2
        self.of_own = nn.Conv2d(feature_channels, half, 3, padding=1)
        self.of_residual = nn.Conv2d(residual_channels, width - half, 3, padding=1)
        self.delta = _residual_blocks(width, 3, feature_channels)

    def joined(self, own: Tensor, residual: Tensor) -> Tensor:
        """Computes what the branches read, [N, width, R, R]."""
        return torch.cat([self.of_own(own), self.of_residual(residual)], dim=1)

    def forward(
        self,
        own: Tensor,  # [N, C, R, R], the generator's feature of the codes, edited or not
        residual: Tensor,  # [N, C', R, R], the output of E1
    ) -> Injection:
        """Transforms the residual for these codes and adds it to their feature."""
        delta = self.delta(self.joined(own, residual))
        return Injection(feature=own + delta, delta=delta)


class GatedTransform(ResidualTransform):
    """E2 of the official code: own + gate * delta, with one gate for every pixel."""

    def __init__(self, *, feature_channels: int, residual_channels: int, width: int) -> None:
        super().__init__(
            feature_channels=feature_channels, residual_channels=residual_channels, width=width
        )
        self.gate = _residual_blocks(width, 3, 1)

    def forward(self, own: Tensor, residual: Tensor) -> Injection:
        """Transforms the residual for these codes and adds what the gate lets through."""
        joined = self.joined(own, residual)
        delta, gate = self.delta(joined), torch.sigmoid(self.gate(joined))
        return Injection(feature=torch.addcmul(own, gate, delta), delta=delta, gate=gate)


class NoTransform(nn.Module):
    """The ablation without E2: own + residual, whatever the codes are."""

    def __init__(self, *, feature_channels: int, residual_channels: int, width: int) -> None:
        super().__init__()
        if residual_channels != feature_channels:
            raise ValueError(
                f"the residual has {residual_channels} channels, expected {feature_channels}, "
                "those of the layer: without E2 it is added as it is"
            )

    def forward(
        self,
        own: Tensor,  # [N, C, R, R], the generator's feature of the codes, edited or not
        residual: Tensor,  # [N, C, R, R], the output of E1
    ) -> Injection:
        """Adds the residual."""
        return Injection(feature=own + residual, delta=residual)


TRANSFORMS: dict[Fusion, Callable[..., nn.Module]] = {
    "sum": ResidualTransform,
    "gate": GatedTransform,
    "none": NoTransform,
}
