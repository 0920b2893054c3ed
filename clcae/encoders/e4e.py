"""A style head for every row: the encoder of pSp, and e4e's reading of the same heads.

Richardson et al. 2021 (pSp), section 3.1, `GradualStyleEncoder`; Tov et al. 2021 (e4e), section
4.1, `Encoder4Editing`. Both have the same weights under the same names: pSp reads every head as a
row of W+, e4e reads the first as w and the others as offsets from it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clcae.encoders.pyramid import Pyramid
from clcae.encoders.w_plus import level_of_row
from clcae.nn.style_head import StyleHead
from clcae.nn.trunk import IR_SE50


class GradualEncoder(nn.Module):
    """pSp: rows as the heads give them, measured from the mean of W."""

    def __init__(
        self,
        *,
        num_rows: int,
        w_dim: int = 512,
        image_size: int = 256,  # the longer side
        stem_channels: int = 64,
        stages: Sequence[Sequence[int]] = IR_SE50,  # (channels, units) of the trunk
        width: int = 512,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.pyramid = Pyramid(
            stem_channels=stem_channels,
            stages=stages,
            stem_stride=1,
            width=width,
            num_levels=3,
        )
        self.levels = [level_of_row(row, num_rows, 3) for row in range(num_rows)]
        self.heads = nn.ModuleList(
            StyleHead(in_channels=width, out_dim=w_dim, side=self.pyramid.side(level, image_size))
            for level in self.levels
        )

    def outputs(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]; the longer side is image_size
        count: int,
    ) -> Tensor:
        """What the first heads give, [N, count, w_dim]; the other heads are not computed.

        Raises:
            ValueError: images of another shape.
        """
        if images.ndim != 4 or images.shape[1] != 3 or max(images.shape[2:]) != self.image_size:
            raise ValueError(
                f"images have shape {tuple(images.shape)}, this encoder reads [N, 3, H, W] whose "
                f"longer side is {self.image_size}"
            )
        levels = self.pyramid(images)
        heads = zip(self.levels[:count], self.heads[:count], strict=True)
        return torch.stack([head(levels[level]) for level, head in heads], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Rows [N, num_rows, w_dim]."""
        return self.outputs(images, len(self.heads))


class ProgressiveEncoder(GradualEncoder):
    """e4e: w on every row, plus an offset on every row after the first."""

    def forward(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]; the longer side is image_size
        *,
        stage: int | None = None,
    ) -> Tensor:
        """Rows [N, num_rows, w_dim], measured from the mean of W.

        Args:
            images: the pictures.
            stage: the last row that has its offset, section 4.1; 0 gives codes of W, None all
                offsets.

        Raises:
            ValueError: images of another shape, or a stage that is no row.
        """
        last = len(self.heads) - 1
        stage = last if stage is None else stage
        if not 0 <= stage <= last:
            raise ValueError(f"stage is {stage}, expected 0 to {last}")
        outputs = self.outputs(images, stage + 1)
        w = outputs[:, :1]
        unmoved = w.expand(-1, last - stage, -1)
        return torch.cat([w, w + outputs[:, 1:], unmoved], dim=1)
