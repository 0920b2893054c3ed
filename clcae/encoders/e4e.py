"""The encoder of pSp, a style head for every row, and e4e's reading of the same heads.

Richardson et al. 2021 (pSp), section 3.1, `GradualStyleEncoder`; Tov et al. 2021 (e4e), section
4.1, `Encoder4Editing`. Both have the same weights under the same names: pSp reads every head as a
row of W+, e4e reads the first as w and the others as offsets from it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from clcae.encoders.pyramid import Pyramid
from clcae.encoders.w_plus import RowHeads
from clcae.nn.trunk import IR_SE50


class GradualEncoder(RowHeads):
    """pSp: rows as the heads give them, measured from the mean of W."""

    def __init__(
        self,
        *,
        num_rows: int,
        w_dim: int = 512,
        image_size: int = 256,  # the longer side
        stem_channels: int = 64,
        stages: Sequence[Sequence[int]] = IR_SE50,  # (channels, units) of the trunk
        stem_stride: int = 1,
        width: int = 512,
        num_heads: int | None = None,  # of the first rows; None: one for every row
    ) -> None:
        pyramid = Pyramid(
            stem_channels=stem_channels,
            stages=stages,
            stem_stride=stem_stride,
            width=width,
            num_levels=3,
        )
        super().__init__(
            pyramid=pyramid, num_rows=num_rows, w_dim=w_dim, side=image_size, count=num_heads
        )
        self.num_rows = num_rows
        self.image_size = image_size
        self.pyramid = pyramid
        self.stage = len(self.heads) - 1  # the last row that has its offset, of e4e

    def trunk_outputs(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]; the longer side is image_size
    ) -> list[Tensor]:
        """Computes the outputs of stem and stages of the trunk, [N, C_i, H_i, W_i], finest first.

        Raises:
            ValueError: if images have another shape.
        """
        if images.ndim != 4 or images.shape[1] != 3 or max(images.shape[2:]) != self.image_size:
            raise ValueError(
                f"images have shape {tuple(images.shape)}, this encoder reads [N, 3, H, W] whose "
                f"longer side is {self.image_size}"
            )
        return self.pyramid.trunk(images)

    def rows(
        self,
        trunk_outputs: Sequence[Tensor],  # what `trunk_outputs` returned
        count: int | None = None,
    ) -> Tensor:
        """Computes the vectors of the first heads, [N, count, w_dim]; None: of all."""
        return torch.stack(self.vectors(self.pyramid.merged(trunk_outputs), count), dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Computes rows [N, num_rows, w_dim]."""
        return self.rows(self.trunk_outputs(images))


class ProgressiveEncoder(GradualEncoder):
    """e4e: w on every row, plus an offset on every row after the first that has a head.

    Training raises `stage` from 0 (official training/coach.py); no checkpoint holds it.
    """

    def forward(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]; the longer side is image_size
        *,
        stage: int | None = None,
    ) -> Tensor:
        """Computes rows [N, num_rows, w_dim], measured from the mean of W.

        Args:
            images: the pictures.
            stage: the last row that has its offset; 0 gives codes of W, None takes
                `self.stage`, which is the last one unless training sets it.

        Raises:
            ValueError: if images have another shape, or stage is no row.
        """
        return self.codes(self.trunk_outputs(images), stage=stage)

    def codes(
        self,
        trunk_outputs: Sequence[Tensor],  # what `trunk_outputs` returned
        *,
        stage: int | None = None,
    ) -> Tensor:
        """Computes what `forward` does from the trunk's outputs. Raises ValueError as above."""
        last = len(self.heads) - 1
        stage = self.stage if stage is None else stage
        if not 0 <= stage <= last:
            raise ValueError(f"stage is {stage}, expected 0 to {last}")
        rows = self.rows(trunk_outputs, stage + 1)
        w = rows[:, :1]
        return torch.cat([w, w + rows[:, 1:], w.expand(-1, self.num_rows - 1 - stage, -1)], dim=1)
