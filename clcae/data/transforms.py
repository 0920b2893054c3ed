"""Resizes and crops batches of images."""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Filter = Literal["bilinear", "bicubic"]
FILTERS: tuple[Filter, ...] = ("bilinear", "bicubic")


def resize(
    images: Tensor,  # [N, 3, H, W], in [-1, 1]
    size: tuple[int, int],
    *,
    filter_name: Filter = "bicubic",
) -> Tensor:
    """Resizes images to [N, 3, *size] with antialiasing, clamped to [-1, 1].

    The filters are Pillow's, without its rounding to 256 levels after each pass: files prepared
    with Pillow differ by about a level, and by more where bicubic overshoots black or white.

    `filter_name` is a part of every evaluation protocol.

    Raises:
        ValueError: if the filter has another name.
    """
    if filter_name not in FILTERS:
        raise ValueError(f"filter {filter_name!r}: expected one of {', '.join(FILTERS)}")
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    resized = F.interpolate(
        images, size=size, mode=filter_name, align_corners=False, antialias=True
    )
    return resized.clamp(-1, 1)


def center_crop(
    images: Tensor,  # [..., H, W]
    size: tuple[int, int],
) -> Tensor:
    """Crops images to their centre: [..., *size], a view.

    Of an odd margin the larger half is cut below and right.

    Raises:
        ValueError: if an image is smaller than the crop.
    """
    height, width = images.shape[-2:]
    if height < size[0] or width < size[1]:
        raise ValueError(
            f"image is {height} x {width}, smaller than the crop of {size[0]} x {size[1]}"
        )
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return images[..., top : top + size[0], left : left + size[1]]


def height_and_width(
    image_size: int | Sequence[int],  # a side, or (H, W)
) -> tuple[int, int]:
    """Returns (H, W) of an image size that may be given as one side of a square.

    Raises:
        ValueError: if these are not two positive numbers.
    """
    sides = (image_size,) * 2 if isinstance(image_size, int) else (*image_size,)
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(f"image_size is {image_size}, expected a side or (height, width)")
    return sides


def at_input_size(
    pictures: Tensor,  # [N, 3, R, R]
    size: Sequence[int],  # (H, W), no side above R
) -> Tensor:
    """Scales a generator's pictures to an encoder's input size: [N, 3, H, W].

    Averages over pixels down to the longer side, then crops to the centre: pictures of cars have
    their content in rows 32 to 224 of 256. The official codes of pSp, e4e and CLCAE do this before
    losses and metrics.
    """
    height, width = size
    side = max(height, width)
    if pictures.shape[-1] != side:
        pictures = F.adaptive_avg_pool2d(pictures, side)
    return center_crop(pictures, (height, width))
