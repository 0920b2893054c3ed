"""Photographs as a method reads them, and its pictures back in their place.

A photograph of any size becomes one cutout or several: its middle in the method's aspect, or its
faces as FFHQ crops them (`clcae.faces`). A region of it can be edited with all else left as it was,
value for value.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from clcae.data.pictures import read_photograph
from clcae.data.transforms import center_crop, resize
from clcae.faces import Detector, Which, align_face, choose, paste_back
from clcae.images import from_uint8, to_uint8

Size = tuple[int, int]  # height, width
Kind = Literal["centre", "face"]
Alpha = Callable[[Size], Tensor]  # of a photograph -> [H, W], 0 where it stays


@dataclass(frozen=True)
class Cutout:
    """What a method reads of a photograph.

    Args:
        image: [3, H, W] in [-1, 1], as large as the method reads.
        quad: [4, 2], its corners in the photograph: top left, bottom left, bottom right, top
            right, in pixels with the centre of the top left pixel at (0, 0).
        kind: "centre" for the middle of the photograph, "face" for an upright face.
    """

    image: Tensor
    quad: Tensor
    kind: Kind


@dataclass(frozen=True)
class Photograph:
    """A picture file and what a method reads of it.

    Args:
        cutouts: One, or one a face from left to right.
        size: Height and width of the photograph, upright.
        sha256: Digest of the file.
        image: [3, *size] in [-1, 1]; uint8 once `packed`, None once `forgotten`.
    """

    cutouts: list[Cutout]
    size: Size
    sha256: str
    image: Tensor | None


def read_middle(path: Path, *, shape: Size) -> Photograph:
    """A picture file and its middle, in the aspect of `shape` and resized to it.

    Raises:
        ValueError: If it is no picture.
    """
    image = read_photograph(path)
    return _photograph(path, image, [_middle(image, shape)])


def read_faces(path: Path, *, shape: Size, detector: Detector, which: Which) -> Photograph:
    """A picture file and the FFHQ crops of its faces.

    A picture that is such a crop already is taken whole. Of several faces, profiles and tiny ones
    are left out where another one is good.

    Args:
        path: The file.
        shape: Height and width of a crop; equal.
        detector: Finds the faces.
        which: Those that are meant, as in `clcae.faces.face.choose`.

    Raises:
        ValueError: If it is no picture, or shows no face that can be used.
    """
    image = read_photograph(path)
    cutouts, refused = [], []
    for face in choose(detector.detect(image), which):
        try:
            crop = align_face(image, face, size=shape[0])
        except ValueError as error:
            refused.append(error)
            continue
        kind: Kind = "centre" if crop.was_aligned else "face"
        cutouts.append(Cutout(crop.image, crop.quad, kind))
    if not cutouts:
        raise refused[0]
    return _photograph(path, image, cutouts)


def forgotten(photograph: Photograph) -> Photograph:
    """Without the whole image: for results that are as large as the cutout."""
    return replace(photograph, image=None)


def packed(photograph: Photograph) -> Photograph:
    """With the whole image as uint8, a quarter of its memory."""
    assert photograph.image is not None
    return replace(photograph, image=to_uint8(photograph.image))


def put_back(
    photo: Tensor,  # [3, H, W], in [-1, 1] or packed
    picture: Tensor,  # [3, h, w], in [-1, 1], of any size
    cutout: Cutout,
    *,
    reference: Tensor | None = None,  # [3, h, w]
) -> Tensor:
    """The photograph with a picture where a part of it was cut out.

    Args:
        photo: The photograph.
        picture: What became of the cutout: a generator's picture. Where the method's images are no
            squares, the generator's square or its middle rows.
        cutout: Where it goes. A face fades into the photograph at its edge.
        reference: The picture without the edit; then the photograph receives the difference only
            and keeps its own detail. None puts the picture itself there.

    Returns:
        [3, H, W], in [-1, 1], unchanged outside the cutout.
    """
    photo = unpacked(photo)
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


def content(
    picture: Tensor,  # [3, R, R], or of the aspect of the shape already
    shape: torch.Size | Size,  # of the method's images, (..., H, W)
) -> Tensor:
    """The rows and columns of a generator's square that stand for an image of another aspect."""
    height, width = shape[-2:]
    if picture.shape[-2] * width == picture.shape[-1] * height:
        return picture
    side = picture.shape[-1]
    longest = max(height, width)
    return center_crop(picture, (side * height // longest, side * width // longest))


def box_mask(box: tuple[int, int, int, int], *, feather: int) -> Alpha:
    """A rectangle from (x0, y0) to (x1, y1), the latter exclusive, in pixels of the photograph."""

    def alpha(size: Size) -> Tensor:
        x0, y0, x1, y1 = box
        inside = torch.zeros(size)
        inside[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = 1.0
        if not inside.any():
            raise ValueError(
                f"mask {x0},{y0},{x1},{y1} lies outside the picture of {size[1]} x {size[0]} pixels"
            )
        return feathered(inside, feather)

    return alpha


def picture_mask(path: Path, *, feather: int) -> Alpha:
    """A mask from a picture file: white is edited, black stays, grey is between."""
    inside = (read_photograph(path).mean(dim=0) + 1) / 2
    whole = feathered(inside, feather)

    def alpha(size: Size) -> Tensor:
        if tuple(whole.shape) != tuple(size):
            raise ValueError(
                f"the mask has {whole.shape[1]} x {whole.shape[0]} pixels, the picture "
                f"{size[1]} x {size[0]}: expected the same"
            )
        return whole

    return alpha


def feathered(
    mask: Tensor,  # [H, W], in [0, 1]
    pixels: int,
) -> Tensor:
    """A mask that rises from its border inwards over so many pixels; what was 0 stays 0.

    The border of the picture is none of the mask's.
    """
    total, eroded = mask.clone(), mask
    for _ in range(pixels):
        eroded = -F.max_pool2d(-eroded[None, None], 3, stride=1, padding=1)[0, 0]
        total += eroded
    return total / (pixels + 1)


def within(
    mask: Tensor,  # [H, W], in [0, 1]
    photo: Tensor,  # [3, H, W]
    edited: Tensor,  # [3, H, W]
) -> Tensor:
    """The edited picture where the mask is 1, the photograph itself where it is 0."""
    return torch.where(mask > 0, torch.lerp(photo, edited, mask), photo)


def unpacked(image: Tensor) -> Tensor:
    """An image in [-1, 1], whichever form it is in."""
    return from_uint8(image) if image.dtype == torch.uint8 else image


def _photograph(path: Path, image: Tensor, cutouts: list[Cutout]) -> Photograph:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    height, width = image.shape[-2:]
    return Photograph(cutouts, (height, width), digest, image)


def _middle(image: Tensor, shape: Size) -> Cutout:
    """The largest middle part of the aspect of `shape`."""
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


def face_names(name: str, count: int) -> list[str]:
    """What the results of a photograph's faces are called: NAME, or NAME-0, NAME-1 of several."""
    return [name] if count == 1 else [f"{name}-{number}" for number in range(count)]
