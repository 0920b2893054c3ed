"""Reads, writes and lays out images: float32 RGB tensors in [-1, 1].

Reading applies the EXIF orientation, lays transparency on white and turns grey and CMYK into RGB;
16-bit grey keeps its 16 bits. Embedded colour profiles are not applied, and 16-bit colour is read
at 8 bits, as Pillow does.
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from clcae.files import replacing

# Everything that Pillow raises on damaged files; OSError covers truncation.
DECODING_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    KeyError,
    IndexError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_EXPECTED = "expected a complete PNG, JPEG, WebP, BMP or TIFF picture"


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
    return images.float() / 127.5 - 1


def to_pil(
    image: Tensor,  # [3, H, W], in [-1, 1]
) -> Image.Image:
    """Converts one image to an RGB picture of Pillow, quantised by `to_uint8`. Raises as it."""
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"image is {tuple(image.shape)}: expected one image [3, H, W]")
    return Image.fromarray(to_uint8(image.detach()).permute(1, 2, 0).cpu().numpy())


def from_pil(picture: Image.Image) -> Tensor:
    """Converts a Pillow picture of any mode to an image [3, H, W], float32 in [-1, 1].

    Raises:
        ValueError: if the mode leaves the range of values open (floating point, or integers beyond
            16 bits).
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        return _from_deep_grey(picture)
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, layer)
    pixels = np.array(picture.convert("RGB"))
    return from_uint8(torch.from_numpy(pixels)).permute(2, 0, 1).contiguous()


def _from_deep_grey(picture: Image.Image) -> Tensor:
    """Converts a 16-bit grey picture to [3, H, W]; `convert("RGB")` would clip it to 8 bits."""
    values = np.array(picture).astype(np.float32)
    if picture.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ValueError(f"picture has mode {picture.mode}: expected 8 or 16 bits per channel")
    grey = torch.from_numpy(values / 32767.5 - 1)
    return grey.expand(3, -1, -1).contiguous()


def read_image(path: str | Path) -> Tensor:
    """Reads a picture file as an image [3, H, W], float32 in [-1, 1].

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no picture, or is damaged or cut short.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; {_EXPECTED}")
    if not path.is_file():
        raise ValueError(f"{path}: not a file; {_EXPECTED}")
    return decode_image(path.read_bytes(), name=str(path))


def decode_image(data: bytes, *, name: str) -> Tensor:
    """Decodes the bytes of a picture file to an image [3, H, W], float32 in [-1, 1].

    Raises:
        ValueError: if the bytes are no picture, or are damaged or cut short; it begins with `name`.
    """
    try:
        with Image.open(BytesIO(data)) as picture:
            picture.load()
            return from_pil(picture)
    except DECODING_ERRORS as error:
        # Pillow's own message names the in-memory buffer.
        reason = "not a picture" if isinstance(error, Image.UnidentifiedImageError) else error
        one_line = " ".join(str(reason).split())
        raise ValueError(f"{name}: cannot be read ({one_line}); {_EXPECTED}") from error


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
