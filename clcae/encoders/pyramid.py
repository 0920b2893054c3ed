"""The feature pyramid over an IR-SE trunk.

CLCAE section 3.2, T1 to T3; `GradualStyleEncoder` of pSp. Levels are numbered from the coarsest, so
T1 is level 0. Deviation: any number of levels, and 1x1 convolutions wherever the trunk is not as
wide as the pyramid (the official one is 512 wide at its coarsest level and needs none there).
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from clcae.nn.trunk import Trunk


class Pyramid(nn.Module):
    """Encodes images as feature maps of one width, coarsest first."""

    def __init__(
        self,
        *,
        stem_channels: int,
        stages: Sequence[Sequence[int]],  # (channels, units) of the trunk
        stem_stride: int,
        width: int,
        num_levels: int,
    ) -> None:
        super().__init__()
        if not 1 <= num_levels <= len(stages) + 1:
            raise ValueError(f"num_levels is {num_levels}, expected 1 to {len(stages) + 1}")
        self.trunk = Trunk(stem_channels=stem_channels, stages=stages, stem_stride=stem_stride)
        coarsest_first = self.trunk.channels[::-1][:num_levels]
        self.laterals = nn.ModuleList(
            nn.Identity() if level == 0 and channels == width else nn.Conv2d(channels, width, 1)
            for level, channels in enumerate(coarsest_first)
        )
        self.num_levels, self.width = num_levels, width
        self._first_stride = stem_stride << (len(stages) - num_levels + 1)

    def side(self, level: int, size: int) -> int:
        """Returns the side of a level's map for square images of `size` pixels."""
        return size // (self._first_stride << (self.num_levels - 1 - level))

    def forward(
        self,
        images: Tensor,  # [N, 3, H, W]
    ) -> list[Tensor]:
        """Computes [N, width, h, w] of every level, coarsest first."""
        return self.merged(self.trunk(images))

    def merged(
        self,
        trunk_outputs: Sequence[Tensor],  # [N, C_i, H_i, W_i], finest first
    ) -> list[Tensor]:
        """Computes [N, width, h, w] of every level, coarsest first, from the trunk's outputs."""
        outputs = trunk_outputs[::-1][: self.num_levels]
        levels = [self.laterals[0](outputs[0])]
        for lateral, output in zip(self.laterals[1:], outputs[1:], strict=True):
            size = output.shape[2:]
            above = F.interpolate(levels[-1], size=size, mode="bilinear", align_corners=True)
            levels.append(above + lateral(output))
        return levels


def made_square(
    level: Tensor,  # [N, C, h, w]
) -> Tensor:
    """Pads a feature map with zeros to a square of its longer side, as the official code does."""
    height, width = level.shape[2:]
    across, down = (max(height, width) - side for side in (width, height))
    return F.pad(level, (across // 2, across - across // 2, down // 2, down - down // 2))
