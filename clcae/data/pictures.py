"""Picture files: lists those that a command was given, and names their results."""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from clcae.picture_file import EXTENSIONS, look

# What systems leave in folders, in lower case; names that begin with a dot are never listed.
_LEFT_BY_SYSTEMS = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir"}
# What our commands write beside a picture NAME.png: records of crops, and inversion files.
_RECORD, INVERSION = ".json", ".safetensors"


@dataclass(frozen=True)
class Item:
    """A file and the name of its results."""

    path: Path
    name: str  # without suffix, unique in a command; folders below a given folder are kept


def find_items(
    inputs: Sequence[str | Path],
    *,
    without: Path | None = None,
    inversions: bool = False,
) -> list[Item]:
    """Lists the files that a command was given.

    Args:
        inputs: files; folders, taken with all below them; patterns such as `photos/*.jpg`. Of
            folders, hidden files are left out, as is what systems leave (Thumbs.db) and what
            align.py and invert.py write beside a picture. A file that is reached twice is taken
            once.
        without: folder to leave out, for results within the inputs; None is none.
        inversions: list inversion files that lie beside their reconstruction as well.

    Returns:
        One item for each file, pictures or not, in the order of the inputs and sorted within a
        folder. Pictures whose names differ only in their suffix keep it as a part of the name.

    Raises:
        FileNotFoundError: if there is no such file, no file fits a pattern, or a folder is empty.
    """
    found: dict[Path, tuple[Path, str]] = {}  # real path -> path as given, name with suffix
    for given in inputs:
        paths = matching_paths(given)
        listed = [entry for path in paths for entry in _files(path, inversions=inversions)]
        if not listed:
            raise FileNotFoundError(f"{given}: no file in it; expected pictures")
        for path, name in listed:
            real = Path(os.path.realpath(path))  # resolve() fails at links in a circle
            if without is None or not real.is_relative_to(os.path.realpath(without)):
                found.setdefault(real, (path, name))
    if not found:
        raise FileNotFoundError(
            f"{', '.join(map(str, inputs))}: nothing but what lies in the folder of the results, "
            f"{without}; give another --out"
        )
    return _named(list(found.values()))


def is_picture(name: str) -> bool:
    """Tests a name for an ending of the pictures that are read."""
    return name.lower().endswith(EXTENSIONS)


def is_left_by_a_system(name: str) -> bool:
    """Tests the name of a file or folder for what is never meant as a picture: Thumbs.db."""
    return name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS


def printable(name: str) -> str:
    """Returns a file's name for results and reports; bytes that are not UTF-8 are written out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def pixels_of(path: Path) -> int:
    """Counts the pixels of a picture file by its header; 0 where that cannot be read."""
    try:
        return look(path, name=path).pixels if is_picture(path.name) else 0
    except (ValueError, OSError):
        return 0  # reading it says why


def matching_paths(given: str | Path) -> list[Path]:
    """Returns a path that exists, or the sorted matches of a pattern.

    Raises:
        FileNotFoundError: if there are none.
    """
    path = Path(given)
    if os.path.lexists(path):
        return [path]
    matches = sorted(glob.glob(str(given), recursive=True))  # noqa: PTH207 - absolute patterns too
    if not matches:
        raise FileNotFoundError(f"{given}: no such file or folder, and no file fits it")
    return [Path(match) for match in matches]


def _files(path: Path, *, inversions: bool) -> Iterator[tuple[Path, str]]:
    """Yields files with their names, sorted; of a folder, all below it."""
    if not path.is_dir():
        yield path, path.name
        return
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not is_left_by_a_system(name))
        ours = {_RECORD} if inversions else {_RECORD, INVERSION}
        pictures = {PurePath(file).stem for file in files if file.endswith(".png")}
        for file in sorted(files):
            own = PurePath(file).suffix in ours and PurePath(file).stem in pictures
            if not is_left_by_a_system(file) and not own:
                whole = Path(folder) / file
                yield whole, whole.relative_to(path).as_posix()


def _named(files: list[tuple[Path, str]]) -> list[Item]:
    """Drops the suffix where names of pictures stay unique, else keeps it, else adds a number."""
    plain = Counter(_stem(full).casefold() for _, full in files if is_picture(full))
    used, names = set[str](), {}
    for path, full in sorted(files, key=lambda entry: not is_picture(entry[1])):  # pictures first
        name = _stem(full)
        taken = plain[name.casefold()] > (1 if is_picture(full) else 0)
        if taken and PurePath(full).suffix:
            name = f"{name}_{PurePath(full).suffix[1:]}"
        base, number = printable(name), 1
        name = base
        while name.casefold() in used:  # the results may lie on a disk that ignores case
            number += 1
            name = f"{base}_{number}"
        used.add(name.casefold())
        names[path] = name
    return [Item(path, names[path]) for path, _ in files]


def _stem(name: str) -> str:
    return str(PurePath(name).with_suffix("").as_posix())
