"""W+ rows and the feature as the official CLCAE code computes them, for its checkpoints.

`CrossAttention` decoder layers of the official code (arXiv 2211.11448, section 3.2, in the paper's
figure): 4 heads, a feed-forward part twice as wide, dropout 0.1, layer norms after each part. Key
and value are one token, so attention is the linear map of it that is built here; the official
query and key weights have no effect (their gradients are exactly 0) and do not exist.
Against the paper: w is a residual within the normalised layer and is added to it again afterwards,
and f takes the place of the generator's feature instead of starting from it.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clcae.encoders.pyramid import Pyramid, made_square
from clcae.encoders.w_plus import RowHeads
from clcae.nn.attention import OneTokenAttention
from clcae.nn.batch_norm import BatchNorm2d
from clcae.nn.equalized import EqualizedLinear
from clcae.nn.rows import Dropout, dropout
from clcae.nn.style_head import halving_convolutions


class OneTokenLayer(nn.Module):
    """Attention to one token, feed-forward, each with a residual and a layer norm after it."""

    def __init__(
        self,
        *,
        dim: int,
        token_dim: int,
        num_heads: int = 4,  # matters to dropout only
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim {dim} is no multiple of {num_heads} heads")
        self.num_heads, self.dropout = num_heads, dropout
        self.attention = OneTokenAttention(token_dim=token_dim, out_dim=dim)
        self.norm1 = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, 2 * dim), nn.ReLU(), Dropout(dropout), nn.Linear(2 * dim, dim)
        )
        self.norm2 = nn.LayerNorm(dim)

    def forward(
        self,
        queries: Tensor,  # [N, Q, dim]
        token: Tensor,  # [N, token_dim]
    ) -> Tensor:
        """Returns the queries after both parts, [N, Q, dim]."""
        x = self.norm1(queries + self._drop(self._attended(token, queries.shape[1])))
        return self.norm2(x + self._drop(self.feed_forward(x)))

    def _attended(self, token: Tensor, num_queries: int) -> Tensor:
        """Computes what attention adds to every query, [N, Q, dim]; its dropout drops heads."""
        value = self.attention.value(token)[:, None]
        if self.training and self.dropout:
            kept = self._drop(value.new_ones(len(token), num_queries, self.num_heads, 1))
            value = (value.unflatten(2, (self.num_heads, -1)) * kept).flatten(2)
        attended: Tensor = self.attention.out(value)
        return attended.expand(-1, num_queries, -1)

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.dropout, self.training)


class OfficialRows(RowHeads):
    """A layer for every row, whose token is w for the first and the vector of a head for others."""

    def __init__(
        self, *, pyramid: Pyramid, num_rows: int, w_dim: int, image_size: int, dropout: float
    ) -> None:
        super().__init__(pyramid=pyramid, num_rows=num_rows, w_dim=w_dim, side=image_size, first=1)
        self.layers = nn.ModuleList(
            OneTokenLayer(dim=w_dim, token_dim=w_dim, dropout=dropout) for _ in range(num_rows)
        )

    def forward(
        self,
        offset: Tensor,  # [N, w_dim], w minus its average
        levels: Sequence[Tensor],  # pyramid, coarsest first
    ) -> Tensor:
        """Computes what is added to w, [N, num_rows, w_dim]; it holds w once already."""
        tokens = zip(self.layers, [offset, *self.vectors(levels)], strict=True)
        return torch.cat([layer(offset[:, None], token) for layer, token in tokens], dim=1)


class OfficialFeature(nn.Module):
    """T3 attends to w, then strided convolutions to the size of the generator's feature."""

    def __init__(
        self,
        *,
        in_channels: int,
        in_side: int,  # of the square that maps are padded to
        w_dim: int,
        out_shape: tuple[int, int, int],  # (C, R, R) of the generator's feature
        dropout: float,
    ) -> None:
        super().__init__()
        out_channels, out_side, _ = out_shape
        halvings = math.log2(in_side / out_side)
        if halvings < 1 or not halvings.is_integer():
            raise ValueError(
                f"the pyramid level is {in_side}x{in_side}, the generator's feature "
                f"{out_side}x{out_side}: expected a level larger by a power of two"
            )
        self.layer = OneTokenLayer(dim=in_channels, token_dim=w_dim, dropout=dropout)
        self.content = halving_convolutions(in_channels, out_channels, int(halvings))

    def forward(
        self,
        level: Tensor,  # [N, C, h, w], T3; maps that are not square are padded with zeros
        offset: Tensor,  # [N, w_dim], w minus its average
    ) -> Tensor:
        """Computes f [N, C', R, R]."""
        x = self.layer(level.flatten(2).transpose(1, 2), offset)
        return self.content(made_square(x.transpose(1, 2).unflatten(2, level.shape[2:])))


def initialize_officially(module: nn.Module) -> None:
    """Initializes the weights of a module as the official encoders do, at a scale of 0.02.

    Normal values for convolutions, truncated ones for linear layers (equalised ones too, which
    makes codes start near the mean), gains around 1 for norms. Biases stay as they are built.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.02)
        elif isinstance(layer, nn.Linear | EqualizedLinear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
        elif isinstance(layer, BatchNorm2d | nn.LayerNorm):
            nn.init.normal_(layer.weight, mean=1.0, std=0.02)
