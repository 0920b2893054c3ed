"""Cutouts: what a method reads of a photograph, and how its picture goes back into the place.

A cutout is the middle of the photograph in the aspect of the method's images, or a face as FFHQ
crops it (`clcae.faces`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from clcae.data.transforms import center_crop, resize
from clcae.faces import paste_back

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Cutout:
    """A part of a photograph at the size that a method reads.

    Args:
        image: [3, H, W] in [-1, 1].
        quad: its corners [4, 2] in the photograph: top left, bottom left, bottom right, top right,
            in pixels with the centre of the top left pixel at (0, 0).
        kind: "centre" for the middle of the photograph, "face" for an upright face.
    """

    image: Tensor
    quad: Tensor
    kind: Literal["centre", "face"]


def cut_middle(
    image: Tensor,  # [3, H, W]
    shape: Size,
) -> Cutout:
    """Cuts the largest middle part of the aspect of `shape` and resizes it to `shape`."""
    height, width = image.shape[-2:]
    scale = min(height / shape[0], width / shape[1])
    size = (
        min(max(round(shape[0] * scale), 1), height),
        min(max(round(shape[1] * scale), 1), width),
    )
    top, left = (height - size[0]) // 2 - 0.5, (width - size[1]) // 2 - 0.5
    bottom, right = top + size[0], left + size[1]
    corners = [[left, top], [left, bottom], [right, bottom], [right, top]]
    middle = resize(center_crop(image, size)[None], shape)[0].contiguous()
    return Cutout(middle, torch.tensor(corners, dtype=torch.float64), "centre")


def put_back(
    photo: Tensor,  # [3, H, W], in [-1, 1]
    picture: Tensor,  # [3, h, w], in [-1, 1], of any size
    cutout: Cutout,
    *,
    reference: Tensor | None = None,  # [3, h, w]
) -> Tensor:
    """Puts a generator's picture into the place of a cutout; nothing changes outside.

    Args:
        photo: the photograph.
        picture: the generator's square, or the middle rows of it that the method reads.
        cutout: the place. A face fades into the photograph at its edge.
        reference: the picture before the edit; the photograph then receives only the difference and
            keeps its own detail. None puts the picture itself there.
    """
    if cutout.kind == "face":
        return paste_back(photo, picture, cutout.quad, reference=reference)
    (left, top), (right, bottom) = ((cutout.quad[[0, 2]] + 0.5).round().long()).tolist()
    size = (bottom - top, right - left)
    put = resize(content(picture, cutout.image.shape)[None], size)[0]
    result = photo.clone()
    if reference is not None:
        base = resize(content(reference, cutout.image.shape)[None], size)[0]
        put = photo[:, top:bottom, left:right] + put - base
    result[:, top:bottom, left:right] = put.clamp(-1, 1)
    return result


def place_of(
    cutouts: Sequence[Cutout],
    size: Size,
) -> tuple[slice, slice]:
    """Finds the rows and columns of a photograph that hold all cutouts."""
    corners = torch.cat([cutout.quad for cutout in cutouts])
    low, high = corners.amin(0).floor().long(), corners.amax(0).ceil().long() + 1
    (left, top), (right, bottom) = low.clamp_min(0).tolist(), high.clamp_min(1).tolist()
    return slice(top, min(bottom, size[0])), slice(left, min(right, size[1]))


def moved(cutout: Cutout, rows: slice, columns: slice) -> Cutout:
    """Describes a cutout within a part of its photograph."""
    corner = cutout.quad.new_tensor([columns.start, rows.start])
    return replace(cutout, quad=cutout.quad - corner)


def content(
    picture: Tensor,  # [3, R, R], or of the aspect of the shape already
    shape: torch.Size | Size,  # of the method's images, (..., H, W)
) -> Tensor:
    """Crops a generator's square to the middle that has the aspect of the method's images."""
    height, width = shape[-2:]
    if picture.shape[-2] * width == picture.shape[-1] * height:
        return picture
    side = picture.shape[-1]
    longest = max(height, width)
    return center_crop(picture, (side * height // longest, side * width // longest))
