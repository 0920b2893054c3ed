"""Multi-head cross-attention, and the linear map that it is for a single token."""

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Attention = Literal["many_token", "one_token", "none"]


def check_attention(value: str, name: str) -> None:
    """Raises ValueError if the setting called `name` is none of `Attention`."""
    if value not in get_args(Attention):
        known = ", ".join(map(repr, get_args(Attention)))
        raise ValueError(f"{name} is {value!r}, expected one of {known}")


class CrossAttention(nn.Module):
    """Multi-head attention of queries to tokens (Vaswani et al. 2017, section 3.2)."""

    def __init__(
        self,
        *,
        query_dim: int,
        token_dim: int,
        width: int,  # of all heads together, a multiple of num_heads
        out_dim: int,
        num_heads: int = 4,
    ) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"width {width} is no multiple of {num_heads} heads")
        self.num_heads = num_heads
        self.query = nn.Linear(query_dim, width)
        self.key = nn.Linear(token_dim, width)
        self.value = nn.Linear(token_dim, width)
        self.out = nn.Linear(width, out_dim)

    def forward(
        self,
        queries: Tensor,  # [N, Q, query_dim]
        tokens: Tensor,  # [N, T, token_dim]
    ) -> Tensor:
        """Returns [N, Q, out_dim]."""
        query, key, value = (
            self._heads(projection)
            for projection in (self.query(queries), self.key(tokens), self.value(tokens))
        )
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.out(attended.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class OneTokenAttention(nn.Module):
    """Cross-attention to a single token, where softmax is 1: out(value(token)) for every query.

    Both maps are stored, as in official checkpoints; query and key, which have no effect, are not.
    """

    def __init__(self, *, token_dim: int, out_dim: int) -> None:
        super().__init__()
        self.value = nn.Linear(token_dim, out_dim)
        self.out = nn.Linear(out_dim, out_dim)

    def forward(
        self,
        token: Tensor,  # [N, token_dim]
    ) -> Tensor:
        """Returns [N, out_dim]."""
        return self.out(self.value(token))


def sinusoidal_positions(
    height: int,
    width: int,
    channels: int,  # a multiple of 4
) -> Tensor:
    """Computes sinusoidal position embeddings of a grid: [height * width, channels], rows first.

    Sines and cosines of x and of y at geometric frequencies (Carion et al. 2020, appendix A.4).
    Coordinates are in [0, 1] at every input size.
    """
    if channels % 4:
        raise ValueError(f"channels is {channels}, expected a multiple of 4")
    frequencies = math.pi * 2.0 ** torch.linspace(0.0, 5.0, channels // 4)
    y = ((torch.arange(height) + 0.5) / height)[:, None].expand(height, width)
    x = ((torch.arange(width) + 0.5) / width)[None].expand(height, width)
    angles = torch.cat([x[..., None] * frequencies, y[..., None] * frequencies], dim=-1)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(0, 1)
