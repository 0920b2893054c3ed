"""Files of drawn pictures: numpy's format, then the SHA-256 digest of all that is before it."""

import fcntl
import hashlib
import io
import os
import sys
import time
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.lib.format import write_array_header_1_0
from numpy.typing import NDArray
from torch import Tensor

from clcae.files import leftovers, replacing

Shape = tuple[int, int, int, int]
ABANDONED = 60.0  # seconds after which an unfinished file that nobody has locked is removed
_BLOCK = 1 << 22
_DIGEST_SIZE = hashlib.sha256().digest_size


def write_pixels(path: Path, shape: Shape, parts: Iterable[NDArray[np.uint8]]) -> None:
    """Writes pictures [N, 3, H, W], given in parts, whole or not at all.

    Unfinished files of killed processes in the same folder are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in leftovers(path.parent):
        _remove_abandoned(leftover)
    digest = hashlib.sha256()
    with replacing(path) as partial, partial.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # others see by it that somebody writes
        for data in chain([_header(shape)], (part.tobytes() for part in parts)):
            digest.update(data)
            file.write(data)
        file.write(digest.digest())


def read_pixels(path: Path, shape: Shape) -> Tensor | None:
    """Maps pictures [N, 3, H, W] into memory; None if there are none, or damaged ones."""
    if not path.is_file():
        return None
    header = _header(shape)
    end = len(header) + int(np.prod(shape))
    with path.open("rb") as file:
        good = file.read(len(header)) == header and _is_intact(file, header, end)
    if not good:
        print(f"{path} is damaged: the portraits are drawn again", file=sys.stderr, flush=True)
        return None
    # A copy-on-write map: torch has no read-only tensors and warns of read-only arrays.
    pixels = np.memmap(path, dtype=np.uint8, mode="c", offset=len(header), shape=shape)
    return torch.from_numpy(pixels)


def _is_intact(file: BinaryIO, header: bytes, end: int) -> bool:
    size = os.fstat(file.fileno()).st_size
    if size == end:  # of a former version, which wrote no digest
        return True
    if size != end + _DIGEST_SIZE:
        return False
    digest, left = hashlib.sha256(header), end - len(header)
    while left:
        block = file.read(min(left, _BLOCK))
        digest.update(block)
        left -= len(block)
    return file.read() == digest.digest()


def _header(shape: Shape) -> bytes:
    header = io.BytesIO()
    write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return header.getvalue()


def _remove_abandoned(path: Path) -> None:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - os.fstat(file.fileno()).st_mtime > ABANDONED:
                path.unlink(missing_ok=True)
    except OSError:  # somebody writes it, or it has gone
        return
