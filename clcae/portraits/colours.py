"""Makes colours [N, 3, 1, 1] in [0, 1] from bytes, palettes and hues."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

# Palettes, in bytes: deep to fair, black to platinum, dark brown to blue.
SKIN = (
    *((86, 54, 42), (118, 76, 56), (152, 100, 70), (190, 134, 98)),
    *((222, 170, 132), (240, 198, 166), (253, 222, 200)),
)
HAIR = (
    *((32, 27, 36), (54, 38, 34), (82, 54, 38), (116, 74, 46), (142, 86, 54)),
    *((172, 120, 74), (202, 160, 100), (236, 204, 134), (243, 228, 196)),
)
EYES = ((62, 38, 26), (104, 66, 36), (132, 108, 52), (86, 130, 82), (96, 134, 150), (70, 128, 196))


def rgb(red: float, green: float, blue: float) -> Tensor:
    """Converts one colour from bytes to [1, 3, 1, 1] in [0, 1]."""
    return torch.tensor([red, green, blue], dtype=torch.float32).view(1, 3, 1, 1) / 255.0


def palette(
    position: Tensor,  # [N, 1, 1, 1], in [0, 1]
    stops: Sequence[tuple[int, int, int]],
) -> Tensor:
    """Interpolates a palette linearly between its stops, [N, 3, 1, 1]."""
    table = torch.tensor(stops, dtype=torch.float32) / 255.0
    scaled = position.flatten().clamp(0.0, 1.0) * (len(stops) - 1)
    below = scaled.floor().clamp_max(len(stops) - 2)
    index = below.long()
    return torch.lerp(table[index], table[index + 1], (scaled - below)[:, None])[..., None, None]


def hue_colour(
    hue: Tensor,  # [N, 1, 1, 1], in turns
    saturation: Tensor | float,
    light: Tensor | float,  # the brightest channel, in [0, 1]
) -> Tensor:
    """Converts hue, saturation and light to a colour [N, 3, 1, 1]."""
    offsets = torch.tensor([0.0, -1.0 / 3.0, 1.0 / 3.0]).view(1, 3, 1, 1)
    # A cosine wheel has softer yellows and cyans than the hexagon of HSV, and no corners.
    wheel = 0.5 + 0.5 * torch.cos(2.0 * math.pi * (hue + offsets))
    return light * (1.0 - saturation * (1.0 - wheel))
