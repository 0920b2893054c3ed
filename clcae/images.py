"""Reads, writes and lays out images: float32 RGB tensors in [-1, 1].

Reading applies the EXIF orientation, converts colours to sRGB by the profile in the file, lays
transparency on white and turns grey and CMYK into RGB; 16-bit grey keeps its 16 bits. 16-bit colour
is read at 8 bits, as Pillow does.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from clcae.colour import to_srgb
from clcae.files import replacing
from clcae.picture_file import DECODING_ERRORS, opened, unreadable

_BAND = 256  # rows that are converted at a time
_log = logging.getLogger(__name__)


def to_uint8(
    images: Tensor,  # [..., 3, H, W], in [-1, 1]
) -> Tensor:
    """Quantises images to uint8: -1 becomes 0 and 1 becomes 255; values beyond are clamped.

    Raises:
        ValueError: if a value is NaN.
    """
    if torch.isnan(images).any():
        raise ValueError("images hold NaN: expected finite values in [-1, 1]")
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def from_uint8(
    images: Tensor,  # [..., 3, H, W], uint8
) -> Tensor:
    """Converts uint8 images to float32 in [-1, 1], the inverse of `to_uint8`.

    Raises:
        ValueError: if the images are of another type.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images are {images.dtype}: expected torch.uint8")
    return images.float().div_(127.5).sub_(1)


def to_pil(
    image: Tensor,  # [3, H, W], in [-1, 1]
) -> Image.Image:
    """Converts one image to an RGB picture of Pillow, quantised by `to_uint8`. Raises as it."""
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"image is {tuple(image.shape)}: expected one image [3, H, W]")
    return Image.fromarray(to_uint8(image.detach()).permute(1, 2, 0).cpu().numpy())


def from_pil(picture: Image.Image, *, name: object = "picture") -> Tensor:
    """Converts a Pillow picture of any mode to an image [3, H, W], float32 in [-1, 1].

    Args:
        picture: the picture.
        name: of its file, for messages.

    Raises:
        ValueError: if the mode leaves the range of values open (floating point, or integers beyond
            16 bits).
    """
    values = _values(picture, name)
    return from_uint8(values) if values.dtype == torch.uint8 else values


def _values(picture: Image.Image, name: object) -> Tensor:
    """Converts a picture to [3, H, W]: uint8, or float32 in [-1, 1] where it has 16 bits."""
    picture = ImageOps.exif_transpose(picture)
    deep = picture.mode.startswith("I") or picture.mode == "F"
    return _from_deep_grey(picture, name) if deep else _levels(picture)


def _levels(picture: Image.Image) -> Tensor:
    """Converts a picture to [3, H, W], uint8, a band at a time: large ones fill memory once."""
    pixels = torch.empty(3, picture.height, picture.width, dtype=torch.uint8)
    for top in range(0, picture.height, _BAND):
        bottom = min(top + _BAND, picture.height)
        band = picture.crop((0, top, picture.width, bottom))
        if picture.has_transparency_data:
            layer = band.convert("RGBA")
            coloured = to_srgb(layer.convert("RGB"), picture.info.get("icc_profile"))
            coloured.putalpha(layer.getchannel("A"))
            white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
            band = Image.alpha_composite(white, coloured)
        else:
            band = to_srgb(band, picture.info.get("icc_profile"))
        pixels[:, top:bottom] = torch.from_numpy(np.array(band.convert("RGB"))).permute(2, 0, 1)
    return pixels


def _from_deep_grey(picture: Image.Image, name: object) -> Tensor:
    """Converts grey of 16 or 32 bits to [3, H, W]; `convert("RGB")` would clip it to 8 bits."""
    values = np.array(picture).astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if picture.mode == "F" or not 0 <= low <= high <= 65535:
        raise ValueError(
            f"picture has mode {picture.mode} with values from {low:g} to {high:g}: expected 8 or "
            "16 bits per channel; save it as 8-bit PNG"
        )
    if 0 < high <= 255:
        _log.warning("%s: 8-bit values in a picture of 16 or more bits, read as 8-bit", name)
    grey = torch.from_numpy(values / (127.5 if high <= 255 else 32767.5) - 1)
    return grey.expand(3, -1, -1).contiguous()


def read_image(path: str | Path) -> Tensor:
    """Reads a picture file as an image [3, H, W], float32 in [-1, 1], upright.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no picture, is damaged or cut short, or is larger than
            `clcae.picture_file` allows.
    """
    with opened(Path(path), name=path) as picture:
        return decoded(picture, name=path)


def decoded(picture: Image.Image, *, name: object) -> Tensor:
    """Decodes and closes a picture of `clcae.picture_file.opened`: [3, H, W] in [-1, 1].

    Raises:
        ValueError: if it is damaged, cut short, or of a mode that `from_pil` refuses.
    """
    try:
        picture.load()
        values = _values(picture, name)
        picture.close()  # frees its pixels
        return from_uint8(values) if values.dtype == torch.uint8 else values
    except DECODING_ERRORS as error:
        raise unreadable(error, name) from error


def write_png(
    image: Tensor,  # [3, H, W], in [-1, 1]
    path: str | Path,
    *,
    compress_level: int = 6,
) -> None:
    """Writes one image as PNG, atomically; values beyond the range are clamped.

    The default `compress_level` (zlib's, 0 to 9) takes four times as long as 1, which makes
    photographs an eighth larger.

    Raises:
        ValueError: if the shape is another one or a value is NaN.
    """
    picture = to_pil(image)
    with replacing(path) as partial:
        picture.save(partial, format="PNG", compress_level=compress_level)


def labelled_grid(
    columns: Mapping[str, Tensor],  # heading -> [N, 3, H, W], in [-1, 1]
    *,
    scale: int = 1,
    padding: int = 4,
    text_size: int = 16,
    row_labels: Sequence[str] | None = None,
) -> Tensor:
    """Arranges images in columns with a heading above each: `input | W | W+ | F`.

    Args:
        columns: images by heading, in the order of the columns, all of one shape.
        scale: integer factor by which every cell is enlarged, pixels repeated.
        padding: white pixels around every cell.
        text_size: height of the letters in pixels.
        row_labels: text left of each of the N rows; None: no text.

    Returns:
        One image [3, H', W'] on the CPU. A column is as wide as its heading if that is wider.

    Raises:
        ValueError: if there is no column, if shapes differ, or if labels and rows differ in number.
    """
    shapes = {tuple(images.shape) for images in columns.values()}
    if len(shapes) != 1 or len(next(iter(shapes))) != 4:
        raise ValueError(f"columns have shapes {sorted(shapes)}: expected one shape [N, 3, H, W]")
    num_rows, _, height, width = shapes.pop()
    if row_labels is not None and len(row_labels) != num_rows:
        raise ValueError(f"{len(row_labels)} row labels for {num_rows} rows")
    height, width = height * scale, width * scale
    font = ImageFont.load_default(text_size)
    line = text_size + text_size // 2
    cell = max(width, *(_text_width(font, heading) for heading in columns))
    margin = padding
    if row_labels:
        margin += max(_text_width(font, label) for label in row_labels) + padding
    size = (
        margin + len(columns) * (cell + padding),
        padding + line + num_rows * (height + padding),
    )
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for x, (heading, images) in enumerate(columns.items()):
        left = margin + x * (cell + padding)
        draw.text((left + cell // 2, padding), heading, fill="black", font=font, anchor="ma")
        enlarged = F.interpolate(images.detach().float().cpu(), scale_factor=float(scale))
        for y, image in enumerate(enlarged):
            top = padding + line + y * (height + padding)
            sheet.paste(to_pil(image), (left + (cell - width) // 2, top))
    for y, label in enumerate(row_labels or ()):
        middle = padding + line + y * (height + padding) + height // 2
        draw.text((padding, middle), label, fill="black", font=font, anchor="lm")
    return from_pil(sheet)


def _text_width(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, text: str) -> int:
    return -(-int(font.getlength(text) * 64) // 64)
