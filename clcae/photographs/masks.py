"""Masks: the region of a photograph that an edit may change.

A painted mask is read as levels from black, where nothing changes, to white. Of colours the
brightest channel counts; colour profiles do not. Transparency on one colour is read instead of that
colour: what is opaque may change. Values 0 and 1 are black and white.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from clcae.files import sha256
from clcae.photographs.cutouts import Size
from clcae.picture_file import DECODING_ERRORS, opened, unreadable

DARKEST = 31  # brightest level of a mask that is taken for numbers of regions


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
        *,
        alpha: Tensor | None = None,  # [H, W]
    ) -> Tensor:
        """Blends the edited picture in; where the mask is 0 the photograph keeps its values.

        Args:
            photo: the photograph, or a part of it.
            edited: the same, edited.
            alpha: the mask of that part; None computes that of a whole photograph.

        Raises:
            ValueError: as `alpha`.
        """
        mask = self.alpha((photo.shape[-2], photo.shape[-1])) if alpha is None else alpha
        return torch.where(mask > 0, torch.lerp(photo, edited, mask), photo)


def read_mask(text: str, *, feather: int) -> Mask:
    """Reads a mask option: "x0,y0,x1,y1", or a picture file that is white where to edit.

    Raises:
        FileNotFoundError: if the text is neither.
        ValueError: if the box is empty, or the file is no picture, is black, or holds both colours
            and transparency.
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
    with opened(path, name=path) as picture:
        try:
            upright = ImageOps.exif_transpose(picture)
        except DECODING_ERRORS as error:
            raise unreadable(error, path) from error
        levels = _levels(upright, text)
    return Mask(None, feathered(levels, feather), feather, sha256(path))


def _levels(picture: Image.Image, text: str) -> Tensor:
    """Reads a painted mask: [H, W], from 0 for black to 1 for white."""
    values, white = _brightness(picture), 255.0
    if picture.has_transparency_data:
        alpha = np.asarray(picture.convert("RGBA").getchannel("A"))
        if alpha.min() < alpha.max():
            seen = values[alpha > 0]
            if seen.min() < seen.max():
                raise ValueError(
                    f"--mask {text}: both its colours and its transparency vary, expected one of "
                    "them: save it without transparency"
                )
            print(f"--mask {text}: its transparency is the mask, what is opaque may change")
            values = alpha
    if picture.mode == "F" or values.min() < 0:
        raise ValueError(
            f"--mask {text}: values from {values.min():g} to {values.max():g}, expected levels "
            "from 0 to 255"
        )
    brightest = int(values.max())
    if brightest == 0:
        raise ValueError(
            f"--mask {text}: all black, nothing would change; paint white where to edit"
        )
    if brightest == 1:
        print(f"--mask {text}: values of 0 and 1 are read as black and white")
        white = 1.0
    elif brightest > 255:
        white = 65535.0
    elif brightest <= DARKEST:
        raise ValueError(
            f"--mask {text}: its brightest level is {brightest} of 255, as where numbers stand for "
            "regions; expected white where to edit"
        )
    return torch.from_numpy(values.astype(np.float32) / white).clamp(0, 1)


def _brightness(picture: Image.Image) -> np.ndarray:
    """Returns the grey levels of a picture as its file holds them, or its brightest channel."""
    if picture.mode in ("L", "F") or picture.mode.startswith("I"):
        return np.array(picture)
    return np.array(picture.convert("RGB")).max(axis=-1)


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
