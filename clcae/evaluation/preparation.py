"""Preprocessing of two pictures before a metric compares them: size, levels, file format.

Official scripts compare files: pictures that were resized by one library or another, rounded to 256
levels, and often compressed. Each of these changes every number, so each has a name here, and rows
carry it in the words of `configs/table`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from clcae.images import from_pil, from_uint8, to_pil, to_uint8

Size = tuple[int, int]  # height and width

BILINEAR, AVERAGE = "bilinear with antialiasing", "average over pixels"
PILLOW = {
    "bilinear (Pillow)": Image.Resampling.BILINEAR,
    "bicubic (Pillow)": Image.Resampling.BICUBIC,
}
RESIZES = (BILINEAR, AVERAGE, *PILLOW)  # Pillow's round to 256 levels
LEVELS = ("continuous", "uint8")
FILES = ("PNG", "JPEG")
SIDES = ("outputs", "both")  # which pictures are stored in files of that format


@dataclass(frozen=True)
class Preparation:
    """Resizes, rounds and compresses outputs and targets for a metric.

    Args:
        size: height and width; one number is the longer side, the other keeps the proportions;
            None is the pictures' own.
        resize: one of `RESIZES`.
        levels: "uint8" rounds to 256 levels.
        files: "JPEG" compresses and reads again, "PNG" rounds; None leaves the levels as they are.
        quality: of JPEG, as Pillow counts it.
        compressed: whether "outputs" alone or "both" went through files.

    Raises:
        ValueError: if a field has another value.
    """

    size: int | Size | None = None
    resize: str = BILINEAR
    levels: str = "continuous"
    files: str | None = None
    quality: int = 75  # Pillow's own
    compressed: str = "both"

    def __post_init__(self) -> None:
        sides = self.size if isinstance(self.size, tuple) else (self.size or 0,) * 2
        if self.size is not None and (len(sides) != 2 or min(sides) < 1):
            raise ValueError(f"size is {self.size}: expected positive numbers of pixels")
        known = {
            "resize": (self.resize, RESIZES),
            "levels": (self.levels, LEVELS),
            "files": (self.files, (None, *FILES)),
            "compressed": (self.compressed, SIDES),
        }
        for name, (value, accepted) in known.items():
            if value not in accepted:
                names = ", ".join(map(str, accepted))
                raise ValueError(f"{name} is {value!r}: expected one of {names}")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality is {self.quality}: expected 1 to 100")

    def shape(self, own: Size) -> Size:
        """Returns the prepared height and width of pictures of this size."""
        if self.size is None:
            return own
        if isinstance(self.size, int):
            factor = self.size / max(own)
            return max(round(own[0] * factor), 1), max(round(own[1] * factor), 1)
        return self.size

    def outputs(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]
    ) -> Tensor:
        """Prepares outputs, [N, 3, *shape]."""
        return self._stored(self._resized(images), self.files)

    def targets(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]
    ) -> Tensor:
        """Prepares targets, [N, 3, *shape]."""
        stored = self.files if self.compressed == "both" else None
        return self._stored(self._resized(images), stored)

    def words(self, own: Size, *, source: Size) -> dict[str, str]:
        """Describes the preprocessing for a result row.

        `own` is the size of the pictures that are prepared, `source` that of the smallest file,
        which may have been enlarged before.
        """
        shape = self.shape(own)
        words = {"resolution": size_text(shape), "outputs": "clamped to [-1, 1]"}
        if _exceeds(shape, source):
            words["resolution"] += f", enlarged from {size_text(source)}"
        if shape != own:
            words |= {"resize": self.resize, "resized from": size_text(own)}
        if self.levels == "uint8" or self.files is not None:
            words["levels"] = "uint8"
        if self.files is not None:
            words |= {"files": self.files, "files of": self.compressed}
        if self.files == "JPEG":
            words["JPEG quality"] = str(self.quality)
        return words

    def too_large_for(self, own: Size, source: Size) -> bool:
        """Returns whether it asks for more pixels than the files have."""
        return _exceeds(self.shape(own), source)

    def _resized(self, images: Tensor) -> Tensor:
        size = self.shape((images.shape[-2], images.shape[-1]))
        if tuple(images.shape[-2:]) == size:
            return images
        if self.resize == BILINEAR:
            return F.interpolate(images, size=size, mode="bilinear", antialias=True)
        if self.resize == AVERAGE:
            return F.adaptive_avg_pool2d(images, size)
        taken = PILLOW[self.resize]
        return _each(images, lambda picture: picture.resize((size[1], size[0]), taken))

    def _stored(self, images: Tensor, files: str | None) -> Tensor:
        if files == "JPEG":
            return _each(images, self._compressed)
        if self.levels == "uint8" or files is not None:
            return from_uint8(to_uint8(images))
        return images

    def _compressed(self, picture: Image.Image) -> Image.Image:
        buffer = BytesIO()
        picture.save(buffer, format="JPEG", quality=self.quality)
        return Image.open(buffer, formats=["JPEG"])


def _each(images: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    changed = [from_pil(change(to_pil(image))) for image in images]
    return torch.stack(changed).to(images)


def _exceeds(shape: Size, source: Size) -> bool:
    """Compares the longer sides: official scripts squash cars of 192 x 256 to a square."""
    return max(shape) > max(source)


def size_text(shape: Size) -> str:
    """Writes height and width as "H x W"."""
    return f"{shape[0]} x {shape[1]}"
