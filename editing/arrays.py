"""Numpy's .npy and .npz files, read as plain numbers: never a pickle, never more than is there."""

import io
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

MAX_HEADER = 4096  # bytes
MAX_MEMBER = 1 << 28  # bytes of one array within an archive
_DAMAGE = (
    OSError,
    EOFError,
    SyntaxError,
    TypeError,
    KeyError,
    RuntimeError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_npy(path: str | Path) -> NDArray:
    """Maps the array of a .npy file into memory, read-only.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no .npy file, holds objects, or its size differs from its header.
    """
    with _opened(path) as file, np.errstate(over="ignore"):  # a hostile shape overflows
        if file.read(6) != b"\x93NUMPY":
            raise ValueError("no .npy file")
        array = np.load(path, mmap_mode="r", allow_pickle=False, max_header_size=MAX_HEADER)
        _check(array, array.offset, Path(path).stat().st_size)
        return array


def read_npz(path: str | Path, *, wanted: Sequence[str]) -> dict[str, NDArray]:
    """Reads the wanted arrays of an .npz file, as far as it has them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: as `read_npy`, or if an array is larger than 256 MiB.
    """
    found = {}
    with _opened(path) as file, zipfile.ZipFile(file) as archive:
        for name in wanted:
            entries = [e for e in archive.infolist() if e.filename == f"{name}.npy"]
            if not entries:
                continue
            if len(entries) > 1 or entries[0].file_size > MAX_MEMBER:
                raise ValueError(f"{path}: {name} is there twice, or larger than {MAX_MEMBER}")
            with archive.open(entries[0]) as member:
                data = io.BytesIO(member.read(MAX_MEMBER + 1))
            array = np.lib.format.read_array(data, False, max_header_size=MAX_HEADER)
            _check(array, data.tell() - array.nbytes, len(data.getbuffer()))
            found[name] = array
    return found


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
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(f"{path} is damaged or no file of numpy's ({reason})") from error
    except ValueError as error:
        line = " ".join(str(error).split())[:300]
        raise ValueError(line if line.startswith(str(path)) else f"{path}: {line}") from error


def _check(array: NDArray, start: int, size: int) -> None:
    if array.dtype.kind not in "fiub":
        raise ValueError(f"holds {str(array.dtype)[:40]}, expected plain numbers")
    if start + array.nbytes != size:
        raise ValueError(f"holds {size - start} bytes for {array.shape} of {array.dtype}")
