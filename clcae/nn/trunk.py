"""The IR / IR-SE residual trunk of face networks, of any depth and width.

Deng et al. 2019 (ArcFace), section 3.2.2 "improved residual unit", with squeeze-and-excitation (Hu
et al. 2018); `bottleneck_IR` and `bottleneck_IR_SE` of the pSp family and of CLCAE.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clcae.construction import require_positive
from clcae.nn.batch_norm import BatchNorm2d

IR_SE50 = ((64, 3), (128, 4), (256, 14), (512, 3))  # (channels, units) of every stage


class SqueezeExcitation(nn.Module):
    """Scales channels by gates computed from their means."""

    def __init__(self, *, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.reduce = nn.Conv2d(channels, hidden, 1, bias=False)
        self.expand = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.expand(F.relu(self.reduce(pooled))))


class ResidualUnit(nn.Module):
    """BN, 3x3 convolution, PReLU, 3x3 convolution, BN, squeeze-and-excitation; with a shortcut."""

    def __init__(
        self, *, in_channels: int, out_channels: int, stride: int, excitation: bool
    ) -> None:
        super().__init__()
        self.stride = stride
        self.norm0 = BatchNorm2d(in_channels)
        self.conv0 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.act = nn.PReLU(out_channels)
        self.conv1 = nn.Conv2d(out_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm1 = BatchNorm2d(out_channels)
        self.gates = SqueezeExcitation(channels=out_channels) if excitation else nn.Identity()
        self.shortcut: nn.Sequential | None = None
        if in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, C, H, W] to [N, C', H / stride, W / stride]."""
        # Subsamples before the 1x1 shortcut, which is the same as a strided convolution, because
        # the backward pass of the latter crashed in torch 2.15 on a CPU.
        kept = x[:, :, :: self.stride, :: self.stride]
        shortcut = kept if self.shortcut is None else self.shortcut(kept)
        x = self.conv1(self.act(self.conv0(self.norm0(x))))
        return self.gates(self.norm1(x)) + shortcut


class Trunk(nn.Module):
    """Stem and stages; the first unit of every stage halves the resolution."""

    def __init__(
        self,
        *,
        stem_channels: int,
        stages: Sequence[Sequence[int]],  # (channels, units) of each
        stem_stride: int = 1,  # IR-SE50 has 1; 2 suits pictures that are small already
        excitation: bool = True,
    ) -> None:
        super().__init__()
        require_positive(stem_stride=stem_stride)
        self.stem = nn.Sequential(
            nn.Conv2d(3, stem_channels, 3, stem_stride, padding=1, bias=False),
            BatchNorm2d(stem_channels),
            nn.PReLU(stem_channels),
        )
        self.stages = nn.ModuleList()
        self.channels = [stem_channels]  # of every output
        for channels, units in stages:
            self.stages.append(
                nn.Sequential(
                    *(
                        ResidualUnit(
                            in_channels=channels if unit else self.channels[-1],
                            out_channels=channels,
                            stride=1 if unit else 2,
                            excitation=excitation,
                        )
                        for unit in range(units)
                    )
                )
            )
            self.channels.append(channels)

    def forward(
        self,
        images: Tensor,  # [N, 3, H, W]
    ) -> list[Tensor]:
        """Returns the outputs of stem and stages, [N, C_i, H_i, W_i], finest first."""
        x = self.stem(images.contiguous(memory_format=torch.channels_last))
        outputs = [x]
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs
