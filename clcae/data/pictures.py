"""Picture files: which there are below what a command was given, and how one is read.

Every command lists and reads pictures by these functions. A folder may hold anything; what cannot
be read raises ValueError with the reason.
"""

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
_FILTERS = (
    threading.Lock()
)  # the filters of warnings belong to the process, and readers are threads


@dataclass(frozen=True)
class Item:
    """One file and what its results are called."""

    path: Path
    name: str  # without suffix, unique in a command; folders below a given folder are kept


def find_items(
    inputs: Sequence[str | Path],
    *,
    without: Path | None = None,
) -> list[Item]:
    """Lists what a command was given.

    Args:
        inputs: Files; folders, taken with all below them; patterns such as `photos/*.jpg`. Hidden
            files and folders are left out. A file that is reached twice is taken once.
        without: A folder whose content is left out, for results within the inputs; None is none.

    Returns:
        One item a file, pictures or not, in the order of the inputs and sorted within a folder.
        Files whose names differ in their suffix alone keep it as a part of the name.

    Raises:
        FileNotFoundError: Where nothing is called so, no file fits a pattern, or a folder is empty.
    """
    found: dict[Path, tuple[Path, str]] = {}  # real path -> path as given, name with suffix
    for given in inputs:
        listed = [entry for path in _matching(given) for entry in _files(path)]
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
    """Reads a picture file of any origin.

    Returns:
        Image [3, H, W], float32 in [-1, 1], as it is meant to be seen (EXIF orientation applied).

    Raises:
        ValueError: If it is no picture, is damaged, or is larger than any photograph.
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


def _matching(given: str | Path) -> list[Path]:
    path = Path(given)
    if path.exists():
        return [path]
    matches = sorted(glob.glob(str(given), recursive=True))  # noqa: PTH207 - absolute patterns too
    if not matches:
        raise FileNotFoundError(f"{given}: no such file or folder, and no file fits it")
    return [Path(match) for match in matches]


def _files(path: Path) -> Iterator[tuple[Path, str]]:
    """Files with their names, sorted; a folder's below it."""
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
    """Names without suffix where that is unique, with it where not, numbered where neither is."""
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
    """Lets Pillow read HEIC where the package for it is installed; says so where it is not."""
    if data[4:8] != b"ftyp" or data[8:12] not in _HEIC or ".heic" in Image.registered_extensions():
        return
    if importlib.util.find_spec("pillow_heif") is None:
        raise ValueError(
            f"{path}: a HEIC picture, which needs a reader: convert it to JPEG, or pip install "
            "pillow-heif"
        )
    importlib.import_module("pillow_heif").register_heif_opener()


def _check_size(data: bytes, path: Path) -> None:
    """Refuses what is larger than any photograph by its header, before a pixel is decoded."""
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
