"""numpy's .npy and .npz files, read as plain numbers: never a pickle, never more than is there."""

import ast
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

MAX_HEADER = 4096  # bytes
MAX_MEMBER = 1 << 28  # bytes of one array within an archive
Order = Literal["C", "F"]
_MAGIC = b"\x93NUMPY"
_DAMAGE = (
    OSError,
    EOFError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    UnicodeError,
    NotImplementedError,
    KeyError,
    RuntimeError,
)


def read_npy(path: str | Path) -> NDArray:
    """The array of a .npy file, mapped and read-only, in its own type of numbers.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is none of numpy's, holds objects, or another number of bytes than it says.
    """
    with _open(path) as file:
        dtype, shape, order, start = _header(file)
        there = Path(path).stat().st_size - start
        _compare(dtype, shape, there)
        if not there:
            return np.zeros(shape, dtype)
        return np.memmap(path, dtype=dtype, mode="r", offset=start, shape=shape, order=order)


def read_npz(path: str | Path, *, wanted: Sequence[str]) -> dict[str, NDArray]:
    """Those of the arrays of an .npz file that are wanted, by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as `read_npy`, or an array is larger than 256 MiB.
    """
    found = {}
    with _open(path) as file, zipfile.ZipFile(file) as archive:
        for name in wanted:
            entries = [e for e in archive.infolist() if e.filename == f"{name}.npy"]
            if not entries:
                continue
            if len(entries) > 1 or entries[0].file_size > MAX_MEMBER:
                raise ValueError(f"{path}: {name} is there twice, or larger than {MAX_MEMBER}")
            with archive.open(entries[0]) as member:
                data = member.read(MAX_MEMBER + 1)
            dtype, shape, order, start = _header(io.BytesIO(data))
            _compare(dtype, shape, len(data) - start)
            found[name] = np.frombuffer(data, dtype, offset=start).reshape(shape, order=order)
    return found


@contextmanager
def _open(path: str | Path) -> Iterator[BinaryIO]:
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
        line = " ".join(str(error).split())
        raise ValueError(line if line.startswith(str(path)) else f"{path}: {line}") from error


def _header(file: BinaryIO) -> tuple[np.dtype, tuple[int, ...], Order, int]:
    """Type, shape, order "C" or "F", and where the numbers begin."""
    start = file.read(8)
    if start[:6] != _MAGIC or start[6:7] not in (b"\x01", b"\x02"):
        raise ValueError("no .npy file of version 1 or 2")
    form = "<H" if start[6] == 1 else "<I"
    (length,) = struct.unpack(form, file.read(struct.calcsize(form)))
    if length > MAX_HEADER:
        raise ValueError(f"the header has {length} bytes, at most {MAX_HEADER}")
    text = file.read(length)
    if len(text) != length:
        raise EOFError("the file ends early")
    try:
        fields = ast.literal_eval(text.decode("latin-1").strip())
        code, columns, shape = (fields[key] for key in ("descr", "fortran_order", "shape"))
    except (SyntaxError, ValueError, KeyError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError("the header is damaged") from error
    plain = isinstance(code, str) and len(code) < 8 and code[:1] in "<>|=" and code[1:2] in "fiub"
    if not plain:
        raise ValueError(f"holds {str(code)[:40]!r}, expected plain numbers")
    sound = isinstance(shape, tuple) and len(shape) <= 8
    if not sound or not all(type(n) is int and 0 <= n < 1 << 40 for n in shape):
        raise ValueError(f"has the shape {str(shape)[:60]}, expected sizes")
    try:
        dtype = np.dtype(code)
    except TypeError as error:
        raise ValueError(f"holds {code!r}, expected plain numbers") from error
    return dtype, shape, "F" if columns else "C", file.tell()


def _compare(dtype: np.dtype, shape: tuple[int, ...], there: int) -> None:
    if math.prod(shape) * dtype.itemsize != there:
        raise ValueError(f"holds {there} bytes for an array {shape} of {dtype}")
