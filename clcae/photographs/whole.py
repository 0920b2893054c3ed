"""A whole photograph into which an edit is put: its pixels, colour profile and EXIF data.

What an edit leaves as it was keeps the very values of the file, whatever its profile.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clcae.colour import fits_rgb, from_srgb
from clcae.files import replacing
from clcae.images import decoded, from_uint8, read_image, to_uint8
from clcae.photographs.cutouts import Size
from clcae.picture_file import DECODING_ERRORS, opened

# EXIF tags that are kept: description, maker, model, software, time, artist, copyright; then the
# settings of the camera and the place. Others say how the pixels lie in the file.
_TEXTS = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)
_DIRECTORIES = (0x8769, 0x8825)


@dataclass(frozen=True)
class Whole:
    """A photograph, upright.

    Args:
        image: [3, H, W], uint8, in sRGB.
        own: the same in the colours of the file; None where they are the same.
        profile: colour profile of the file, where RGB pixels can have it.
        exif: EXIF data of the file without what says how pixels lie in it, as its orientation.
    """

    image: Tensor
    own: Tensor | None
    profile: bytes | None
    exif: bytes | None

    @property
    def size(self) -> Size:
        """Height and width."""
        return self.image.shape[-2], self.image.shape[-1]

    @property
    def pixels(self) -> int:
        """Pixels that are kept in memory."""
        return self.image[0].numel() * (1 if self.own is None else 2)

    def write(
        self,
        path: Path,
        rows: slice,
        columns: slice,
        edit: Callable[[Tensor], Tensor],  # [3, h, w] -> [3, h, w], in [-1, 1]
        *,
        compress_level: int,
    ) -> None:
        """Writes the photograph as PNG with a part of it edited, in the profile of the file.

        Args:
            path: file to write.
            rows: of the part.
            columns: of the part.
            edit: called with the part, in sRGB.
            compress_level: of zlib.
        """
        before = self.image[:, rows, columns]
        after = to_uint8(edit(from_uint8(before)))
        changed = (after != before).any(dim=0)
        if self.profile is not None and self.own is not None:
            after = _pixels(from_srgb(_picture(after), self.profile))
        pixels = (self.image if self.own is None else self.own).clone()
        part = pixels[:, rows, columns]
        part.copy_(torch.where(changed, after, part))
        options: dict[str, Any] = {"icc_profile": self.profile, "exif": self.exif}
        kept = {key: value for key, value in options.items() if value}
        with replacing(path) as partial:
            _picture(pixels).save(partial, format="PNG", compress_level=compress_level, **kept)


def read_whole(path: Path) -> tuple[Tensor, Whole]:
    """Reads a photograph as `read_image` does, [3, H, W] in [-1, 1], and all that it is kept with.

    Raises:
        ValueError: as `read_image`.
    """
    image = read_image(path)
    quantised = to_uint8(image)
    own, profile, exif = None, None, None
    with opened(path, name=path) as picture, suppress(*DECODING_ERRORS):
        exif = _exif(picture)
        found = picture.info.get("icc_profile")
        if found and fits_rgb(found):
            profile = found
            picture.load()
            picture.info.pop("icc_profile", None)
            own = to_uint8(decoded(picture, name=path))
    if own is not None and torch.equal(own, quantised):
        own = None
    return image, Whole(quantised, own, profile, exif)


def _exif(picture: Image.Image) -> bytes | None:
    # The method of a PNG file would decode it, to look for EXIF behind the pixels.
    found = Image.Image.getexif(picture)
    data = Image.Exif()
    for tag in _TEXTS:
        if tag in found:
            data[tag] = found[tag]
    for tag in _DIRECTORIES:
        if part := found.get_ifd(tag):
            data[tag] = part
    return data.tobytes() if len(data) else None


def _picture(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def _pixels(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
