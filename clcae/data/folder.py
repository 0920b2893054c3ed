"""Reads the images of a folder or of a zip file, cropped and resized to one size.

A zip file may have the layout that NVIDIA's data set tool writes (pictures in subfolders, beside
them a `dataset.json`, whose labels are not read). Entries are read in memory, never extracted. If a
name leads out of the archive, it is refused: names of images become names of results.
"""

import os
import threading
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from clcae.data.sources import checked_indices
from clcae.data.transforms import FILTERS, Filter, center_crop, resize
from clcae.images import decode_image, read_image

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_MAX_ENTRY_BYTES = 512 * 2**20  # more than any picture; stops zip bombs


class ImageFolder:
    """The images of a folder and its subfolders, or of a zip file, sorted by path.

    Hidden files and folders and the `__MACOSX` folder of an archive are not listed.

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
        return self._files.names[index]

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
        image = self._files.read(self.name(index))
        crop = self.crop
        if crop == "aspect":
            crop = _largest_crop(image.shape[-2], image.shape[-1], self.size)
        if crop is not None:
            try:
                image = center_crop(image, crop)
            except ValueError as error:
                raise ValueError(
                    f"{self.root}/{self.name(index)}: {error}; choose a smaller crop"
                ) from error
        return resize(image[None], self.size, filter_name=self.filter_name)[0]


class _Files(Protocol):
    """Lists files, and reads one as an image [3, H, W]."""

    names: list[str]

    def read(self, name: str) -> Tensor: ...


class _FolderFiles:
    def __init__(self, *, root: Path, extensions: tuple[str, ...]) -> None:
        self.root = root
        self.names = sorted(
            name
            for folder, _, files in os.walk(root)
            for file in files
            if _is_listed(name := (Path(folder) / file).relative_to(root).as_posix(), extensions)
        )

    def read(self, name: str) -> Tensor:
        return read_image(self.root / name)


class _ZipFiles:
    """Entries of an archive, opened in each process: forked ones would share a file position."""

    def __init__(self, *, path: Path, extensions: tuple[str, ...]) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._archive: zipfile.ZipFile | None = None
        self._process = -1
        names = [entry.filename for entry in self._opened().infolist() if not entry.is_dir()]
        self.names = sorted(name for name in names if _is_listed(name, extensions))
        for name in self.names:
            if ".." in PurePosixPath(name).parts or name.startswith("/") or "\\" in name:
                raise ValueError(f"{path}: entry {name!r} leads out of the archive")

    def read(self, name: str) -> Tensor:
        label = f"{self.path}/{name}"
        try:
            with self._lock:
                archive = self._opened()
                if archive.getinfo(name).file_size > _MAX_ENTRY_BYTES:
                    raise ValueError(f"{label}: larger than {_MAX_ENTRY_BYTES >> 20} MiB")
                data = archive.read(name)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
            raise ValueError(
                f"{label}: cannot be read ({error}); expected an undamaged, unencrypted entry"
            ) from error
        return decode_image(data, name=label)

    def _opened(self) -> zipfile.ZipFile:
        if self._archive is None or self._process != os.getpid():
            try:
                self._archive = zipfile.ZipFile(self.path)
            except (zipfile.BadZipFile, OSError) as error:
                raise ValueError(
                    f"{self.path}: not a readable zip archive ({error}); expected a folder of "
                    "pictures or a .zip of them"
                ) from error
            self._process = os.getpid()
        return self._archive

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "names": self.names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.path, self.names = state["path"], state["names"]
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


def _is_listed(name: str, extensions: tuple[str, ...]) -> bool:
    parts = PurePosixPath(name).parts
    hidden = any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in parts)
    return not hidden and name.lower().endswith(extensions)


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
