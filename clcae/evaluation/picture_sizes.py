"""How large the files of a source are, before anything enlarges them; read from their headers."""

import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from PIL import Image

from clcae.data.folder import ImageFolder
from clcae.data.sources import ImageSource
from clcae.evaluation.observation import PairedFolders
from clcae.evaluation.preparation import Size
from clcae.images import DECODING_ERRORS

ENOUGH = 1 << 16  # bytes that hold the header of a picture


def smallest_size(source: ImageSource) -> Size:
    """The least height and width that files of a source have, after the source's own crop.

    Files that are no pictures are left out; reading them says what is wrong. What is no folder
    has pictures as large as it gives them.

    Raises:
        ValueError: If no file has a size.
    """
    if isinstance(source, PairedFolders):
        sizes = [size for _, *pair in source.pairs for path in pair if (size := _of_file(path))]
        check_equal(source, sizes)
    elif isinstance(source, ImageFolder):
        sizes = [_cropped(size, source) for size in _of_folder(source)]
    else:
        height, width = source.images([0]).shape[-2:]
        return height, width
    if not sizes:
        raise ValueError(f"none of {len(source)} files can be read as a picture")
    return min(size[0] for size in sizes), min(size[1] for size in sizes)


def check_equal(source: PairedFolders, sizes: list[Size]) -> None:
    """Refuses folders whose pictures differ in size. Raises ValueError that names one."""
    if len({*sizes}) < 2:
        return
    for name, made, given in source.pairs:
        pair = _of_file(made), _of_file(given)
        if None not in pair and pair[0] != pair[1]:
            said = " and ".join(
                f"{path} is {_text(s)}" for path, s in zip((made, given), pair, strict=True)
            )
            raise ValueError(f"{name}: {said}: expected one size of all pictures")
    found = ", ".join(sorted({_text(size) for size in sizes}))
    raise ValueError(f"pictures are {found}: expected one size of all pictures")


def _of_folder(source: ImageFolder) -> Iterator[Size]:
    names = [source.name(index) for index in range(len(source))]
    if source.root.is_dir():
        for name in names:
            if size := _of_file(source.root / name):
                yield size
        return
    with zipfile.ZipFile(source.root) as archive:
        for name in names:
            try:
                with archive.open(name) as entry:
                    start = entry.read(ENOUGH)
            except (zipfile.BadZipFile, OSError, EOFError, RuntimeError):
                continue
            if size := _of_header(start):
                yield size


def _of_file(path: Path) -> Size | None:
    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except DECODING_ERRORS:
        return None


def _of_header(start: bytes) -> Size | None:
    try:
        with Image.open(BytesIO(start)) as picture:
            return picture.height, picture.width
    except DECODING_ERRORS:
        return None


def _cropped(size: Size, source: ImageFolder) -> Size:
    height, width = size
    if source.crop is None:
        return size
    if source.crop == "aspect":
        rows, columns = source.size
        factor = min(height / rows, width / columns)
        return round(rows * factor), round(columns * factor)
    assert not isinstance(source.crop, str)
    return min(source.crop[0], height), min(source.crop[1], width)


def _text(size: Size | None) -> str:
    return "unreadable" if size is None else f"{size[0]} x {size[1]}"
