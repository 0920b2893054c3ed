"""The feature encoder of CLCAE: F at one layer of the generator, for details no code holds.

CLCAE section 3.2, f = CNN[Attention(Q = T3, K = V = w) + T3]. With the one token w the attention is
a constant added to every position (`one_token`, the paper's form). Otherwise the positions of T3
query the set made of w and every row of W+ (`many_token`). With `none`, an ablation, f is CNN(T3).
Deviation: the last convolution is added to the generator's own feature of W+, and starts at zero,
so that training begins at F = G(w+); the edit rule f + G(edited) - G(w+) then moves exactly the
generator's share.
"""

import math

import torch
from torch import Tensor, nn

from clcae.encoders.pyramid import made_square
from clcae.nn.attention import Attention, CrossAttention, OneTokenAttention
from clcae.nn.style_head import halving_convolutions


class FeatureEncoder(nn.Module):
    """Encodes a pyramid level and the codes as the feature at a generator layer."""

    def __init__(
        self,
        *,
        in_channels: int,
        in_side: int,  # of the level, its longer side
        w_dim: int,
        num_rows: int,
        out_shape: tuple[int, int, int],  # (C, R, R) of the generator's feature
        hidden: int,
        attention: Attention = "many_token",
        num_heads: int = 4,
    ) -> None:
        super().__init__()
        out_channels, out_side, _ = out_shape
        ratio = in_side / out_side
        if ratio < 1 or not math.log2(ratio).is_integer():
            raise ValueError(
                f"the pyramid level is {in_side}x{in_side}, the generator's feature "
                f"{out_side}x{out_side}: expected a level as large, or larger by a power of two"
            )
        self.one_token: OneTokenAttention | None = None
        self.attention: CrossAttention | None = None
        if attention == "one_token":
            self.one_token = OneTokenAttention(token_dim=w_dim, out_dim=in_channels)
        elif attention == "many_token":
            self.norm = nn.LayerNorm(in_channels)
            self.row_embedding = nn.Parameter(torch.randn(num_rows + 1, w_dim) * 0.02)
            self.attention = CrossAttention(
                query_dim=in_channels,
                token_dim=w_dim,
                width=in_channels,
                out_dim=in_channels,
                num_heads=num_heads,
            )
        self.hidden = halving_convolutions(in_channels, hidden, int(math.log2(ratio)), slope=0.2)
        if ratio == 1:
            self.hidden = nn.Sequential(
                nn.Conv2d(in_channels, hidden, 3, padding=1), nn.LeakyReLU(0.2)
            )
        self.last = nn.Conv2d(hidden, out_channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(
        self,
        level: Tensor,  # [N, C, h, w], T3; made square with zeros, as cars are officially
        offset: Tensor,  # [N, w_dim], w minus its average
        row_offsets: Tensor,  # [N, L, w_dim], W+ minus the average
        own: Tensor,  # [N, C', R, R], the generator's feature of W+
    ) -> Tensor:
        """Computes f [N, C', R, R]."""
        if self.one_token is not None:
            level = level + self.one_token(offset)[:, :, None, None]
        elif self.attention is not None:
            queries = self.norm(level.flatten(2).transpose(1, 2))
            tokens = torch.cat([offset[:, None], row_offsets], dim=1) + self.row_embedding
            level = level + self.attention(queries, tokens).transpose(1, 2).reshape(level.shape)
        return own + self.last(self.hidden(made_square(level)))
