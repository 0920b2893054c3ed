"""Picture files: listing those that a command was given, and reading one of any origin."""

import glob
import importlib
import importlib.util
import os
import re
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePath

from PIL import Image
from torch import Tensor

from clcae.images import DECODING_ERRORS, decode_image

LARGEST_SIDE = 16384  # pixels
LARGEST_FILE = 1 << 30  # bytes

_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
# Readers are threads, and the filters of warnings belong to the process.
_FILTERS = threading.Lock()


@dataclass(frozen=True)
class Item:
    """A file and the name of its results."""

    path: Path
    name: str  # without suffix, unique in a command; folders below a given folder are kept


def find_items(
    inputs: Sequence[str | Path],
    *,
    without: Path | None = None,
) -> list[Item]:
    """Lists the files that a command was given.

    Args:
        inputs: files; folders, taken with all below them; patterns such as `photos/*.jpg`. Hidden
            files and folders are left out. A file that is reached twice is taken once.
        without: folder to leave out, for results within the inputs; None is none.

    Returns:
        One item for each file, pictures or not, in the order of the inputs and sorted within a
        folder. Files whose names differ only in their suffix keep it as a part of the name.

    Raises:
        FileNotFoundError: if there is no such file, no file fits a pattern, or a folder is empty.
    """
    found: dict[Path, tuple[Path, str]] = {}  # real path -> path as given, name with suffix
    for given in inputs:
        listed = [entry for path in matching_paths(given) for entry in _files(path)]
        if not listed:
            raise FileNotFoundError(f"{given}: no file in it; expected pictures")
        for path, name in listed:
            real = path.resolve()
            if without is None or not real.is_relative_to(without.resolve()):
                found.setdefault(real, (path, name))
    if not found:
        raise FileNotFoundError(
            f"{', '.join(map(str, inputs))}: nothing but what lies in the folder of the results, "
            f"{without}; give another --out"
        )
    return _named(list(found.values()))


def read_photograph(path: Path) -> Tensor:
    """Reads a picture file as [3, H, W] in [-1, 1], upright by its EXIF orientation.

    Raises:
        ValueError: if it is no picture, is damaged, or is larger than any photograph.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ValueError(f"{path}: more than {LARGEST_FILE >> 30} GiB; expected a photograph")
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    if not data:
        raise ValueError(f"{path}: an empty file; expected a picture")
    _check_reader(data, path)
    _check_size(data, path)
    return decode_image(data, name=str(path))


def matching_paths(given: str | Path) -> list[Path]:
    """Returns a path that exists, or the sorted matches of a pattern.

    Raises:
        FileNotFoundError: if there are none.
    """
    path = Path(given)
    if path.exists():
        return [path]
    matches = sorted(glob.glob(str(given), recursive=True))  # noqa: PTH207 - absolute patterns too
    if not matches:
        raise FileNotFoundError(f"{given}: no such file or folder, and no file fits it")
    return [Path(match) for match in matches]


def _files(path: Path) -> Iterator[tuple[Path, str]]:
    """Yields files with their names, sorted; of a folder, all below it."""
    if not path.is_dir():
        yield path, path.name
        return
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in sorted(files):
            if not file.startswith("."):
                whole = Path(folder) / file
                yield whole, whole.relative_to(path).as_posix()


def _named(files: list[tuple[Path, str]]) -> list[Item]:
    """Drops the suffix where names stay unique, else keeps it, else adds a number."""
    plain = Counter(_stem(name).casefold() for _, name in files)
    items, used = [], set[str]()
    for path, full in files:
        name = _stem(full)
        if plain[name.casefold()] > 1:
            name = f"{name}_{PurePath(full).suffix[1:]}" if PurePath(full).suffix else name
        base, number = name, 1
        while name.casefold() in used:  # the results may lie on a disk that ignores case
            number += 1
            name = f"{base}_{number}"
        used.add(name.casefold())
        items.append(Item(path, name))
    return items


def _stem(name: str) -> str:
    return str(PurePath(name).with_suffix("").as_posix())


def _check_reader(data: bytes, path: Path) -> None:
    """Registers a HEIC reader with Pillow; raises ValueError where none is installed."""
    if data[4:8] != b"ftyp" or data[8:12] not in _HEIC or ".heic" in Image.registered_extensions():
        return
    if importlib.util.find_spec("pillow_heif") is None:
        raise ValueError(
            f"{path}: a HEIC picture, which needs a reader: convert it to JPEG, or pip install "
            "pillow-heif"
        )
    importlib.import_module("pillow_heif").register_heif_opener()


def _check_size(data: bytes, path: Path) -> None:
    """Refuses oversized pictures by their header, before a pixel is decoded."""
    size = "too many"
    try:
        with _FILTERS, warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(BytesIO(data)) as picture:
                width, height = picture.size
        if max(width, height) <= LARGEST_SIDE:
            return
        size = f"{width} x {height}"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        size = next(iter(re.findall(r"\d+", str(error))), size)
    except DECODING_ERRORS:
        return  # decode_image says what is wrong with it
    raise ValueError(
        f"{path}: {size} pixels; expected at most {LARGEST_SIDE} a side and "
        f"{(Image.MAX_IMAGE_PIXELS or 0) // 10**6} megapixels: scale it down"
    )
