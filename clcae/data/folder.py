"""Reads the images of a folder or of a zip file, cropped and resized to one size.

A zip file may have the layout that NVIDIA's data set tool writes (pictures in subfolders, beside
them a `dataset.json`, whose labels are not read). Entries are read in memory, never extracted, and
Windows' backslashes are read as slashes. If a name leads out of the archive, it is refused: names
of images become names of results.
"""

import logging
import lzma
import os
import struct
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol

import torch
from PIL import Image
from torch import Tensor

from clcae.data.pictures import is_left_by_a_system, printable
from clcae.data.sources import checked_indices
from clcae.data.transforms import FILTERS, Filter, center_crop, resize
from clcae.images import decoded
from clcae.picture_file import (
    CLOSED_EXTENSIONS,
    EXTENSIONS,
    Header,
    OversizedError,
    check_bytes,
    look,
    opened,
    room_for,
    seems_cut,
)
from clcae.quoting import one_line

_HEADER = 1 << 16  # bytes of an entry that tell the size of most pictures
_LARGE = 1 << 24  # bytes of an entry whose header is looked at before the rest is inflated
_ENTRY_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    KeyError,
    ValueError,
    OverflowError,
    struct.error,
)
_log = logging.getLogger(__name__)


class ImageFolder:
    """The images of a folder and its subfolders, or of a zip file, sorted by path.

    Hidden files and what systems leave (Thumbs.db, __MACOSX) are not listed. Pictures of formats
    that are not read, such as .psd, are left out with a line that counts them.

    Args:
        root: folder or `.zip` file.
        size: height and width of the images, or one number for both. Smaller files are enlarged.
        crop: centre crop before resizing: "aspect", the largest with the proportions of `size`; a
            number or (height, width) of pixels; None: no crop, other proportions are squashed.
        filter_name: resampling filter, "bilinear" or "bicubic", with antialiasing.
        extensions: endings of the files listed, in lower case; capitals are accepted as well.
        split: text file with the images to use, in order, a path relative to the root in each line;
            None: all images.

    Raises:
        FileNotFoundError: if there is no such folder or file, no picture in it, or a picture that
            the split names is missing.
        ValueError: if the file is no zip archive, an entry leads out of it, a size is not
            positive, or the filter has another name.
    """

    def __init__(
        self,
        *,
        root: str | Path,
        size: int | tuple[int, int],
        crop: int | tuple[int, int] | Literal["aspect"] | None = "aspect",
        filter_name: Filter = "bicubic",
        extensions: Sequence[str] = EXTENSIONS,
        split: str | Path | None = None,
    ) -> None:
        if filter_name not in FILTERS:
            raise ValueError(f"filter {filter_name!r}: expected one of {', '.join(FILTERS)}")
        self.root = Path(root)
        self.size = _pair(size, "size")
        self.crop = crop if crop is None or crop == "aspect" else _pair(crop, "crop")
        self.filter_name = filter_name
        self._files = _open(self.root, tuple(extensions))
        if not self._files.names:
            raise FileNotFoundError(
                f"{self.root}: no picture found; expected files ending in {', '.join(extensions)}, "
                "in the folder or below it"
            )
        if split is not None:
            self._files.names = _chosen(Path(split), self._files.names, self.root)

    def __len__(self) -> int:
        return len(self._files.names)

    def name(self, index: int) -> str:
        """Returns the path of an image relative to the root, with forward slashes."""
        return printable(self._files.names[index])

    def files(self) -> list[Path]:
        """Lists the files of a folder, or the archive."""
        if not self.root.is_dir():
            return [self.root]
        return [self.root / name for name in self._files.names]

    def header(self, index: int) -> Header:
        """Reads the size of a file's picture, upright; nothing is decoded.

        Raises:
            ValueError: if it is no picture that can be read.
        """
        return self._files.header(self._files.names[index])

    def faults(self) -> Iterator[tuple[str, str]]:
        """Looks over the headers of all files; yields the name of each faulty one and why.

        Files of a folder that seem to be cut short are decoded.
        """
        for index, name in enumerate(self._files.names):
            try:
                self.header(index)
                if self.root.is_dir() and seems_cut(self.root / name):
                    self.images([index])
            except (ValueError, OSError) as error:
                yield self.name(index), str(error)

    def images(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Reads, crops and resizes images: [N, 3, *size], float32 in [-1, 1].

        Raises:
            IndexError: if an index is out of range.
            ValueError: if a file is damaged, or smaller than the crop; the message names it.
        """
        wanted = checked_indices(indices, len(self))
        if len(wanted) == 0:
            return torch.empty(0, 3, *self.size)
        return torch.stack([self._image(int(index)) for index in wanted])

    def _image(self, index: int) -> Tensor:
        name, crop = self._files.names[index], self.crop
        label = f"{self.root}/{self.name(index)}"
        with (
            self._files.opened(name) as picture,
            room_for(picture.width * picture.height),
        ):
            image = decoded(picture, name=label)
            if crop == "aspect":
                crop = _largest_crop(image.shape[-2], image.shape[-1], self.size)
            if crop is not None:
                try:
                    image = center_crop(image, crop)
                except ValueError as error:
                    raise ValueError(f"{label}: {error}; choose a smaller crop") from error
            return resize(image[None], self.size, filter_name=self.filter_name)[0].contiguous()


class _Files(Protocol):
    """Lists files, and opens one as a picture."""

    names: list[str]

    def opened(self, name: str) -> AbstractContextManager[Image.Image]: ...

    def header(self, name: str) -> Header: ...


class _FolderFiles:
    def __init__(self, *, root: Path, extensions: tuple[str, ...]) -> None:
        self.root = root
        names = [
            (Path(folder) / file).relative_to(root).as_posix()
            for folder, _, files in os.walk(root)
            for file in files
        ]
        self.names = _listed(names, extensions, root)

    def opened(self, name: str) -> AbstractContextManager[Image.Image]:
        return opened(self.root / name, name=f"{self.root}/{printable(name)}")

    def header(self, name: str) -> Header:
        return look(self.root / name, name=f"{self.root}/{printable(name)}")


class _ZipFiles:
    """Entries of an archive, opened in each process: forked ones would share a file position."""

    def __init__(self, *, path: Path, extensions: tuple[str, ...]) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._archive: zipfile.ZipFile | None = None
        self._process = -1
        entries = [
            entry.filename
            for entry in self._archive_of_this_process().infolist()
            if not entry.is_dir()
        ]
        self._entries = {entry.replace("\\", "/"): entry for entry in entries}
        self.names = _listed(self._entries, extensions, path)
        for name in self.names:
            path_in_it = PurePosixPath(name)
            if ".." in path_in_it.parts or path_in_it.is_absolute() or name[1:2] == ":":
                raise ValueError(f"{path}: entry {name!r} leads out of the archive")

    def opened(self, name: str) -> AbstractContextManager[Image.Image]:
        if self._size(name) > _LARGE:
            self.header(name)  # refuses what is too large before it is inflated
        return opened(BytesIO(self._read(name, -1)), name=f"{self.path}/{name}")

    def header(self, name: str) -> Header:
        label = f"{self.path}/{name}"
        try:
            return look(BytesIO(self._read(name, _HEADER)), name=label)
        except OversizedError:
            raise
        except ValueError:  # the header of some lies further behind
            return look(BytesIO(self._read(name, -1)), name=label)

    def _size(self, name: str) -> int:
        """Returns the number of bytes that an entry claims to have."""
        with self._lock:
            return self._archive_of_this_process().getinfo(self._entries[name]).file_size

    def _read(self, name: str, count: int) -> bytes:
        """Inflates the first bytes of an entry; -1 is all of it."""
        label = f"{self.path}/{name}"
        check_bytes(self._size(name), label)
        try:
            with self._lock:
                archive = self._archive_of_this_process()
                entry = archive.getinfo(self._entries[name])
                with archive.open(entry) as file:
                    return file.read(count)
        except _ENTRY_ERRORS as error:
            reason = one_line(error, 200)
            raise ValueError(
                f"{label}: cannot be read ({reason}); expected an undamaged, unencrypted entry"
            ) from error

    def _archive_of_this_process(self) -> zipfile.ZipFile:
        if self._archive is None or self._process != os.getpid():
            try:
                self._archive = zipfile.ZipFile(self.path)
            except _ENTRY_ERRORS as error:
                raise ValueError(
                    f"{self.path}: not a readable zip archive ({error}); expected a folder of "
                    "pictures or a .zip of them"
                ) from error
            self._process = os.getpid()
        return self._archive

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "names": self.names, "entries": self._entries}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path, self.names, self._entries = state["path"], state["names"], state["entries"]
        self._lock, self._archive, self._process = threading.Lock(), None, -1


def _chosen(split: Path, names: Sequence[str], root: Path) -> list[str]:
    """Reads the names of a split file; all of them must be among `names`."""
    if not split.is_file():
        raise FileNotFoundError(f"{split}: no such split file; expected a text file of names")
    lines = [line.strip() for line in split.read_text(encoding="utf-8").splitlines()]
    wanted = [line for line in lines if line]
    known = set(names)
    if missing := [name for name in wanted if name not in known]:
        raise FileNotFoundError(
            f"{split} names {len(missing)} of {len(wanted)} pictures that {root} does not have "
            f"({', '.join(missing[:3])}{', ...' if missing[3:] else ''})"
        )
    if not wanted:
        raise ValueError(f"{split} names no picture")
    return wanted


def _open(root: Path, extensions: tuple[str, ...]) -> _Files:
    if root.is_dir():
        return _FolderFiles(root=root, extensions=extensions)
    if root.is_file():
        return _ZipFiles(path=root, extensions=extensions)
    raise FileNotFoundError(f"{root}: no such folder; expected a folder of pictures or a .zip")


def _listed(names: Iterable[str], extensions: tuple[str, ...], root: Path) -> list[str]:
    """Sorts the names of pictures; counts in a line those of formats that are not read."""
    meant = [
        name
        for name in names
        if not any(is_left_by_a_system(part) and part != ".." for part in name.split("/"))
    ]
    found = sorted(name for name in meant if name.lower().endswith(extensions))
    others = EXTENSIONS + CLOSED_EXTENSIONS
    left = Counter(
        PurePosixPath(name).suffix.lower()
        for name in meant
        if name.lower().endswith(others) and not name.lower().endswith(extensions)
    )
    if left and found:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(left.items()))
        _say_left_out(root, kinds)
    return found


@lru_cache(maxsize=64)  # once for each folder, which may be opened at several sizes
def _say_left_out(root: Path, kinds: str) -> None:
    _log.warning("%s: left out are %s; convert them to PNG", root, kinds)


def _largest_crop(height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
    """Computes the largest crop with the proportions of `size`, at least one pixel."""
    cropped_height = min(height, max(1, round(width * size[0] / size[1])))
    cropped_width = min(width, max(1, round(height * size[1] / size[0])))
    return cropped_height, cropped_width


def _pair(size: int | tuple[int, int], what: str) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise ValueError(f"{what} is {height} x {width}: expected positive numbers of pixels")
    return int(height), int(width)
