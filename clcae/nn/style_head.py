"""The map2style head of the pSp family, `GradualStyleBlock`: one vector from a feature map."""

import math

from torch import Tensor, nn

from clcae.nn.equalized import EqualizedLinear


def halving_convolutions(
    in_channels: int, channels: int, count: int, *, slope: float = 0.01
) -> nn.Sequential:
    """Builds 3x3 convolutions of stride 2, each with a leaky ReLU."""
    layers: list[nn.Module] = []
    for index in range(count):
        layers += [
            nn.Conv2d(channels if index else in_channels, channels, 3, 2, padding=1),
            nn.LeakyReLU(slope),
        ]
    return nn.Sequential(*layers)


class StyleHead(nn.Module):
    """Strided 3x3 convolutions down to 1x1 with leaky ReLU (0.01), then a linear layer."""

    def __init__(
        self,
        *,
        in_channels: int,
        out_dim: int,
        side: int,  # of the feature map; a power of two
    ) -> None:
        super().__init__()
        if side < 2 or side & (side - 1):
            raise ValueError(f"side is {side}, expected a power of two, 2 or more")
        self.convs = halving_convolutions(in_channels, out_dim, int(math.log2(side)))
        self.linear = EqualizedLinear(in_features=out_dim, out_features=out_dim)

    def forward(
        self,
        feature: Tensor,  # [N, C, side, side]
    ) -> Tensor:
        """Returns [N, out_dim]."""
        return self.linear(self.convs(feature).flatten(1))
