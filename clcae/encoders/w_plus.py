"""Rows of W+ from the foundation code w and the pyramid.

CLCAE section 3.2, w_i+ = w + Attention(Q = w, K = V = Delta_i). In the paper and its code K and V
are one token, so the softmax is 1 and the attention a linear map of Delta_i (`OneTokenRows`, built
as what it is). `ManyTokenRows` attends: every row queries all positions of its pyramid level.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clcae.encoders.pyramid import Pyramid
from clcae.nn.attention import CrossAttention, OneTokenAttention, sinusoidal_positions
from clcae.nn.style_head import StyleHead


def level_of_row(row: int, num_rows: int, num_levels: int) -> int:
    """Returns the pyramid level of a row, coarse rows first; of three levels 3, 4 and the rest."""
    if num_levels == 3 and num_rows >= 8:  # the official split
        return 0 if row < 3 else 1 if row < 7 else 2
    return min(row * num_levels // num_rows, num_levels - 1)


class RowHeads(nn.Module):
    """A style head for every row of W+, on the pyramid level of the row."""

    def __init__(
        self,
        *,
        pyramid: Pyramid,
        num_rows: int,
        w_dim: int,
        side: int,  # of the images, the longer one
        first: int = 0,  # row; those before it have no head
        count: int | None = None,  # of heads; None: one for every row from the first on
    ) -> None:
        super().__init__()
        rows = range(first, num_rows)[:count]
        self.levels = [level_of_row(row, num_rows, pyramid.num_levels) for row in rows]
        self.heads = nn.ModuleList(
            StyleHead(in_channels=pyramid.width, out_dim=w_dim, side=pyramid.side(level, side))
            for level in self.levels
        )

    def vectors(
        self,
        levels: Sequence[Tensor],  # pyramid, coarsest first
        count: int | None = None,
    ) -> list[Tensor]:
        """Computes the vectors [N, w_dim] of the first heads; None: of all."""
        heads = zip(self.levels[:count], self.heads[:count], strict=True)
        return [head(levels[level]) for level, head in heads]


class ManyTokenRows(nn.Module):
    """Rows of W+ query the tokens of their pyramid level."""

    def __init__(
        self,
        *,
        pyramid: Pyramid,
        num_rows: int,
        w_dim: int,
        image_shape: tuple[int, int],  # (H, W)
        num_heads: int = 4,
    ) -> None:
        super().__init__()
        levels = [level_of_row(row, num_rows, pyramid.num_levels) for row in range(num_rows)]
        self.rows = [
            [row for row in range(num_rows) if levels[row] == k] for k in sorted({*levels})
        ]
        self.levels = sorted({*levels})
        self.row_embedding = nn.Parameter(torch.randn(num_rows, w_dim) * 0.02)
        self.norms = nn.ModuleList(nn.LayerNorm(pyramid.width) for _ in self.levels)
        self.attentions = nn.ModuleList(
            CrossAttention(
                query_dim=w_dim,
                token_dim=pyramid.width,
                width=w_dim,
                out_dim=w_dim,
                num_heads=num_heads,
            )
            for _ in self.levels
        )
        # Zero at the start: training begins at W+ = w.
        self.out = nn.Parameter(torch.zeros(num_rows, w_dim, w_dim))
        for index, level in enumerate(self.levels):
            height, width = (pyramid.side(level, side) for side in image_shape)
            positions = sinusoidal_positions(height, width, pyramid.width)
            self.register_buffer(f"positions{index}", positions, persistent=False)

    def forward(
        self,
        offset: Tensor,  # [N, w_dim], w minus its average
        levels: Sequence[Tensor],  # pyramid, coarsest first
    ) -> Tensor:
        """Computes what is added to w, [N, num_rows, w_dim]."""
        attended = []
        for index, (level, rows) in enumerate(zip(self.levels, self.rows, strict=True)):
            tokens = levels[level].flatten(2).transpose(1, 2)
            tokens = self.norms[index](tokens) + self.get_buffer(f"positions{index}")
            queries = offset[:, None] + self.row_embedding[rows]
            attended.append(queries + self.attentions[index](queries, tokens))
        return torch.einsum("nri,rio->nro", torch.cat(attended, dim=1), self.out)


class HeadRows(RowHeads):
    """Adds the vectors of the heads to w: no attention, the paper's ablation."""

    def __init__(
        self,
        *,
        pyramid: Pyramid,
        num_rows: int,
        w_dim: int,
        image_shape: tuple[int, int],  # (H, W)
    ) -> None:
        super().__init__(pyramid=pyramid, num_rows=num_rows, w_dim=w_dim, side=max(image_shape))
        self.maps = nn.ModuleList(self.map_of_row(w_dim) for _ in self.levels)

    def map_of_row(self, w_dim: int) -> nn.Module:
        """Builds the map of a head's vector [N, w_dim]."""
        return nn.Identity()

    def forward(self, offset: Tensor, levels: Sequence[Tensor]) -> Tensor:
        """Computes what is added to w, [N, num_rows, w_dim]; it does not depend on w."""
        vectors = zip(self.maps, self.vectors(levels), strict=True)
        return torch.stack([row_map(vector) for row_map, vector in vectors], dim=1)


class OneTokenRows(HeadRows):
    """The paper's form: the vector of every head, then the linear map that its attention is."""

    def map_of_row(self, w_dim: int) -> nn.Module:
        return OneTokenAttention(token_dim=w_dim, out_dim=w_dim)
