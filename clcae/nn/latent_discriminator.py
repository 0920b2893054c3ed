"""The latent discriminator of e4e, which tells codes of W from rows that an encoder gives.

Tov et al. 2021, section 4, after Nitzan et al. 2020; `LatentCodesDiscriminator` and
`LatentCodesPool` of the official code at 99ea505.
"""

import itertools

import torch
from torch import Tensor, nn


class LatentDiscriminator(nn.Module):
    """Four fully connected layers: a row of W -> a logit.

    Raises:
        ValueError: if a width or the number of layers is below 1.
    """

    def __init__(self, *, w_dim: int = 512, hidden: int = 512, num_layers: int = 4) -> None:
        super().__init__()
        for key, count in {"w_dim": w_dim, "hidden": hidden, "num_layers": num_layers}.items():
            if count < 1:
                raise ValueError(f"{key} is {count}, expected at least 1")
        self.w_dim = w_dim
        widths = [w_dim, *[hidden] * (num_layers - 1)]
        layers: list[nn.Module] = []
        for width, following in itertools.pairwise(widths):
            layers += [nn.Linear(width, following), nn.LeakyReLU(0.2)]
        self.mlp = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(
        self,
        w: Tensor,  # [..., w_dim]
    ) -> Tensor:
        """Returns logits [..., 1], positive for codes of the mapping network."""
        logits: Tensor = self.mlp(w)
        return logits


class LatentPool(nn.Module):
    """Keeps codes of former steps, so that a discriminator does not see the newest alone.

    The image pool of Shrivastava et al. 2017, section 2.3. Its codes are buffers, which checkpoints
    hold.
    """

    codes: Tensor  # [size, w_dim]
    filled: Tensor  # [], the first codes that are in use

    def __init__(self, *, size: int, w_dim: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"size is {size}, expected at least 1 code")
        self.size = size
        self.register_buffer("codes", torch.zeros(size, w_dim))
        self.register_buffer("filled", torch.tensor(0))

    @torch.no_grad()
    def exchange(
        self,
        codes: Tensor,  # [N, w_dim]
        swapped: Tensor,  # [N], bool: what is drawn with probability 1/2
        places: Tensor,  # [N], int64 below size: drawn places
    ) -> Tensor:
        """Returns for every code, in order, itself or the pooled one whose place it takes.

        While the pool is not full, codes are stored and returned as they are.
        """
        given = []
        filled = int(self.filled)
        for code, swap, place in zip(codes, swapped.tolist(), places.tolist(), strict=True):
            given.append(code)
            if filled < self.size:
                self.codes[filled] = code
                filled += 1
            elif swap:
                given[-1] = self.codes[place].clone()
                self.codes[place] = code
        self.filled.fill_(filled)
        return torch.stack(given)
