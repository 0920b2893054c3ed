"""Opens picture files: an allow-list of formats, and bounds checked before a pixel is decoded."""

import importlib
import importlib.util
import os
import re
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

# A plugin enters its format in Image.OPEN when it is imported.
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from clcae.files import check_regular
from clcae.quoting import one_line

# Every other format of Pillow's stays closed: its EPS plugin, for one, starts Ghostscript.
_PLUGINS = (
    PngImagePlugin.PngImageFile,
    JpegImagePlugin.JpegImageFile,
    WebPImagePlugin.WebPImageFile,
    BmpImagePlugin.BmpImageFile,
    TiffImagePlugin.TiffImageFile,
    GifImagePlugin.GifImageFile,
    PpmImagePlugin.PpmImageFile,
    AvifImagePlugin.AvifImageFile,
)
FORMATS = (*(plugin.format for plugin in _PLUGINS), "HEIF")
EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".heic", ".heif", ".avif"),
)
# Pictures that are named where they are left out of a folder.
CLOSED_EXTENSIONS = (
    *(".psd", ".svg", ".eps", ".tga", ".jp2", ".jxl", ".ico", ".exr", ".hdr", ".pcx", ".xcf"),
    *(".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf"),
)
EXPECTED = "expected a complete PNG, JPEG, WebP, AVIF, BMP, GIF, TIFF or PNM picture"
# Everything that Pillow raises on damaged files; OSError covers truncation.
DECODING_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    AssertionError,
    RuntimeError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

MEGAPIXELS = "CLCAE_MAX_MEGAPIXELS"
MEBIBYTES = "CLCAE_MAX_PICTURE_MIB"
_DEFAULTS = {MEGAPIXELS: 89, MEBIBYTES: 512}
_LARGEST_SIDE = 16384  # pixels, at the default number of megapixels
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_END = 64  # bytes
_TURNED = range(5, 9)  # EXIF orientations that swap height and width
_ORIENTATION = 0x0112


class OversizedError(ValueError):
    """Says that a picture is larger than what may be read."""


@dataclass(frozen=True)
class Header:
    """What a file says of its picture before it is decoded.

    Args:
        size: height and width, upright by the EXIF orientation.
        pixels: their product.
    """

    size: tuple[int, int]
    pixels: int


def largest_pixels() -> int:
    """Returns the most pixels of a picture, and of all pictures that are decoded at a time.

    Raises:
        ValueError: if the environment variable holds no positive number.
    """
    return _setting(MEGAPIXELS) * 10**6


def check_bytes(size: int, name: object) -> None:
    """Refuses files that are larger than any picture.

    Raises:
        OversizedError: if there are more bytes than CLCAE_MAX_PICTURE_MIB says.
    """
    largest = _setting(MEBIBYTES)
    if size > largest << 20:
        needed = -(-size >> 20)
        raise OversizedError(
            f"{name}: {needed} MiB, larger than {largest} MiB; the environment variable "
            f"{MEBIBYTES}={needed} allows it"
        )


@contextmanager
def opened(source: Path | IO[bytes], *, name: object) -> Iterator[Image.Image]:
    """Opens a picture and reads its header; nothing is decoded.

    Args:
        source: file, or its bytes as a stream.
        name: begins every message.

    Raises:
        FileNotFoundError: if there is no such file.
        OversizedError: if it has more pixels or bytes than may be read.
        ValueError: if it is no regular file, or no picture of the formats that are read.
    """
    with ExitStack() as stack:
        if isinstance(source, Path):
            if not os.path.lexists(source):
                raise FileNotFoundError(f"{name}: no such file; {EXPECTED}")
            try:
                check_regular(source)
                check_bytes(source.stat().st_size, name)
                stream: IO[bytes] = stack.enter_context(source.open("rb"))
            except OSError as error:
                raise ValueError(f"{name}: cannot be read ({error.strerror})") from error
        else:
            stream = source
        try:
            picture = stack.enter_context(_identified(stream, name))
        except Image.DecompressionBombError as error:  # of plugins that look for themselves
            found = int(next(iter(re.findall(r"\d+", str(error))), largest_pixels()))
            raise _oversized(f"{name}: {found} pixels", found) from error
        except DECODING_ERRORS as error:
            raise unreadable(error, name) from error
        _check_pixels(picture, name)
        yield picture


def look(source: Path | IO[bytes], *, name: object) -> Header:
    """Reads the header of a picture.

    Raises:
        As `opened`.
    """
    with opened(source, name=name) as picture:
        height, width = picture.height, picture.width
        try:
            # The method of a PNG file would decode it, to look for EXIF behind the pixels. Of TIFF
            # files Pillow gives the upright size already.
            turned = Image.Image.getexif(picture).get(_ORIENTATION) in _TURNED
            if turned and picture.format != "TIFF":
                height, width = width, height
        except DECODING_ERRORS:
            pass  # decoding says what is wrong with it
        return Header((height, width), height * width)


def seems_cut(path: Path) -> bool:
    """Tests the end of a PNG, JPEG or WebP file for what a file that was cut short lacks.

    A file that only seems cut may have other data behind the picture; decoding it tells.
    """
    with path.open("rb") as file:
        start = file.read(12)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _END, 0))
        end = file.read()
    if start.startswith(b"\x89PNG"):
        return b"IEND" not in end
    if start.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in end
    if start.startswith(b"RIFF"):
        return size < int.from_bytes(start[4:8], "little") + 8
    return False


class _Room:
    """Counts the pixels that threads hold."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._used = 0

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        largest = largest_pixels()
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + pixels <= largest)
            self._used += pixels
        try:
            yield
        finally:
            with self._changed:
                self._used -= pixels
                self._changed.notify_all()


_room = _Room()


def room_for(pixels: int) -> AbstractContextManager[None]:
    """Waits until so many pixels fit beside those that other threads hold.

    Threads together hold no more than one picture of the largest size; a single one is always
    served. A thread must not ask again while it holds some.
    """
    return _room.taken(pixels)


def _setting(name: str) -> int:
    text = os.environ.get(name, "").strip() or str(_DEFAULTS[name])
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise ValueError(f"{name} is {text[:20]!r}: expected a positive whole number")
    return int(text)


def _identified(stream: IO[bytes], name: object) -> Image.Image:
    """Opens a picture by the first format that knows its beginning.

    Unlike Image.open it knows no other formats than ours, and leaves bounds to us.
    """
    start = stream.read(16)
    if not start:
        raise ValueError("an empty file")
    if Image.MAX_IMAGE_PIXELS is not None and largest_pixels() > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = largest_pixels()  # Pillow's own bound, which some plugins check
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC:
        _register_heic()
    for kind in FORMATS:
        if kind not in Image.OPEN:
            continue
        factory, accepts = Image.OPEN[kind]
        if accepts is not None and accepts(start) is not True:
            continue
        stream.seek(0)
        return factory(stream, str(name))
    raise Image.UnidentifiedImageError("not a picture")


def _register_heic() -> None:
    """Registers a HEIC reader with Pillow; raises ValueError where none is installed."""
    if "HEIF" in Image.OPEN:
        return
    if importlib.util.find_spec("pillow_heif") is None:
        raise ValueError(
            "a HEIC picture, which needs a reader: convert it to JPEG, or pip install pillow-heif"
        )
    importlib.import_module("pillow_heif").register_heif_opener()


def _check_pixels(picture: Image.Image, name: object) -> None:
    width, height = picture.size
    side = _largest_side()
    if width * height > largest_pixels() or max(width, height) > side:
        beyond = max(max(width, height) / side, 1) ** 2
        needed = max(width * height, round(largest_pixels() * beyond))
        raise _oversized(f"{name}: {width} x {height} pixels", needed)


def _largest_side() -> int:
    return round(_LARGEST_SIDE * (_setting(MEGAPIXELS) / _DEFAULTS[MEGAPIXELS]) ** 0.5)


def _oversized(what: str, needed: int) -> OversizedError:
    return OversizedError(
        f"{what}; expected at most {_largest_side()} a side and {_setting(MEGAPIXELS)} megapixels: "
        f"scale it down, or allow it by the environment variable "
        f"{MEGAPIXELS}={-(-needed // 10**6) + 1}"
    )


def unreadable(error: Exception, name: object) -> ValueError:
    """Writes what is wrong with a file in one line."""
    if isinstance(error, OversizedError):
        return error
    reason = one_line(error, 200) or type(error).__name__
    if isinstance(error, Image.UnidentifiedImageError):
        reason = "not a picture"  # Pillow's own message names the stream
    return ValueError(f"{name}: cannot be read ({reason}); {EXPECTED}")
