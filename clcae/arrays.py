"""Numpy's .npy and .npz files, read as plain numbers: never a pickle, never more than is there."""

import io
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from clcae.quoting import one_line, shown

MAGIC = b"\x93NUMPY"
MAX_HEADER = 4096  # bytes
MAX_MEMBERS = 1 << 28  # bytes of all arrays that are read of an archive
MAX_AXES = 8
# Trained numbers hardly shrink; an archive whose arrays grow more than this is made to fill memory.
MAX_GROWTH = 16
SPARE = 1 << 24  # bytes that a small archive may hold beyond that
_DAMAGE = (
    OSError,
    EOFError,
    SyntaxError,
    TypeError,
    LookupError,
    RuntimeError,
    RecursionError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


def read_npy(path: str | Path) -> NDArray:
    """Maps the array of a .npy file into memory, read-only.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no .npy file, holds anything but numbers, or its size differs from its
            header.
    """
    with _opened(path) as file:
        shape, fortran, dtype, count = _header(file, Path(path).stat().st_size)
        if not count:
            return np.zeros(shape, dtype)
        return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")


def read_npz(path: str | Path, *, wanted: Sequence[str] | None = None) -> dict[str, NDArray]:
    """Reads arrays of an .npz file: the wanted ones, as far as it has them, or all.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: as `read_npy`, or if the arrays are much larger than the file, or 256 MiB.
    """
    with _opened(path) as file, zipfile.ZipFile(file) as archive:
        entries: dict[str, zipfile.ZipInfo] = {}
        for entry in archive.infolist():
            name = entry.filename.removesuffix(".npy")
            if wanted is not None and name not in wanted:
                continue
            if name in entries:
                raise ValueError(f"{shown(name)} is there twice")
            entries[name] = entry
        largest = min(MAX_MEMBERS, MAX_GROWTH * Path(path).stat().st_size + SPARE)
        total = sum(entry.file_size for entry in entries.values())
        if total > largest:
            raise ValueError(f"its arrays are {total} bytes, larger than {largest}")
        return {name: _member(archive, entry) for name, entry in entries.items()}


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray:
    with archive.open(entry) as member:
        data = io.BytesIO(member.read(entry.file_size + 1))
    shape, fortran, dtype, _ = _header(data, len(data.getbuffer()))
    flat = np.frombuffer(data.getbuffer(), dtype, offset=data.tell())
    return flat.reshape(shape, order="F" if fortran else "C")


def _header(file: BinaryIO, size: int) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Reads the header before any array is made: shape, column order, type, count of numbers."""
    if file.read(len(MAGIC)) != MAGIC:
        raise ValueError("no .npy file")
    file.seek(0)
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read(file, max_header_size=MAX_HEADER)
    # A composed type has a kind of its own, but may hold pointers; the whole type is matched.
    if dtype.kind not in "fiub" or dtype.hasobject or dtype.fields or dtype.subdtype:
        raise ValueError(f"holds {one_line(dtype, 40)}, expected plain numbers")
    if len(shape) > MAX_AXES or min(shape, default=0) < 0:
        raise ValueError(f"has a shape of {len(shape)} axes, or of negative ones")
    count = math.prod(shape)
    if file.tell() + count * dtype.itemsize != size:
        raise ValueError(f"holds {size - file.tell()} bytes for {shape} of {dtype}")
    return shape, fortran, dtype, count


@contextmanager
def _opened(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a file; whatever shows that it is damaged becomes a ValueError with its name."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            yield file
    except _DAMAGE as error:
        reason = one_line(f"{type(error).__name__}: {error}", 200)
        raise ValueError(f"{path} is damaged or no file of numpy's ({reason})") from error
    except ValueError as error:
        line = one_line(error, 300)
        raise ValueError(line if line.startswith(str(path)) else f"{path}: {line}") from error
