"""Masks: the region of a photograph that an edit may change."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from clcae.images import read_image
from clcae.photographs.cutouts import Size


@dataclass(frozen=True)
class Mask:
    """A feathered region: a box of any photograph, or a painted mask for one size.

    Args:
        box: left, top, right, bottom in pixels, the last two exclusive; None for a painted mask.
        painted: [H, W] in [0, 1], feathered; None for a box.
        feather: pixels over which a box rises from its border inwards.
        label: the box as given, or the sha256 of the painted mask's file.
    """

    box: tuple[int, ...] | None
    painted: Tensor | None
    feather: int
    label: str

    def alpha(self, size: Size) -> Tensor:
        """Computes the mask [H, W] of a photograph: 0 where it stays, 1 where it is edited.

        Raises:
            ValueError: if the box lies outside, or the painted mask has another size.
        """
        if self.painted is not None:
            if tuple(self.painted.shape) != tuple(size):
                raise ValueError(
                    f"the mask has {self.painted.shape[1]} x {self.painted.shape[0]} pixels, the "
                    f"picture {size[1]} x {size[0]}: expected the same"
                )
            return self.painted
        assert self.box is not None
        x0, y0, x1, y1 = self.box
        inside = torch.zeros(size)
        inside[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = 1.0
        if not inside.any():
            raise ValueError(
                f"mask {x0},{y0},{x1},{y1} lies outside the picture of {size[1]} x {size[0]} pixels"
            )
        return feathered(inside, self.feather)

    def apply(
        self,
        photo: Tensor,  # [3, H, W]
        edited: Tensor,  # [3, H, W]
    ) -> Tensor:
        """Blends the edited picture in; values stay where the mask is 0. Raises as `alpha`."""
        mask = self.alpha((photo.shape[-2], photo.shape[-1]))
        return torch.where(mask > 0, torch.lerp(photo, edited, mask), photo)


def read_mask(text: str, *, feather: int) -> Mask:
    """Reads a mask option: "x0,y0,x1,y1", or a picture file that is white where to edit.

    Raises:
        FileNotFoundError: if the text is neither.
        ValueError: if the box is empty, or the file is no picture.
    """
    if re.fullmatch(r"-?\d{1,6}(,-?\d{1,6}){3}", text):
        x0, y0, x1, y1 = (int(number) for number in text.split(","))
        if x1 <= x0 or y1 <= y0:
            raise ValueError(
                f"--mask {text}: an empty box, expected x0,y0,x1,y1 with x0 < x1, y0 < y1"
            )
        return Mask((x0, y0, x1, y1), None, feather, text)
    path = Path(text)
    if not path.is_file():
        raise FileNotFoundError(f"--mask {text}: no such file, and no box x0,y0,x1,y1")
    painted = feathered((read_image(path).mean(dim=0) + 1) / 2, feather)
    return Mask(None, painted, feather, hashlib.sha256(path.read_bytes()).hexdigest())


def feathered(
    mask: Tensor,  # [H, W], in [0, 1]
    pixels: int,
) -> Tensor:
    """Lets a mask rise from its border inwards over some pixels; zeros stay zero.

    The border of the picture does not count as a border of the mask.
    """
    total, eroded = mask.clone(), mask
    for _ in range(pixels):
        eroded = -F.max_pool2d(-eroded[None, None], 3, stride=1, padding=1)[0, 0]
        total += eroded
    return total / (pixels + 1)
