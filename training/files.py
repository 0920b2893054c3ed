"""Files that are whole or not there: written under a temporary name, synchronised, renamed."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch

from clcae.files import FULL_DISK, replacing
from training.errors import UserError


def write_text(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all.

    Raises:
        UserError: the disk is full.
    """

    def write(file: IO[bytes]) -> None:
        file.write(text.encode())

    write_whole(path, write)


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Writes tensors and plain values with ``torch.save``, whole or not at all.

    Raises:
        UserError: the disk is full.
    """
    write_whole(path, lambda file: torch.save(dict(content), file))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads what ``save_checkpoint`` wrote, onto the CPU.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"there is no checkpoint {path}") from None
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"cannot read the checkpoint {path}: {reason}") from error
    return content


def write_whole(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Runs ``write`` on a temporary file, synchronises it and gives it its name.

    Raises:
        UserError: the disk is full; the temporary file is gone and the former file untouched.
    """
    watched: _WatchedFile | None = None
    try:
        with replacing(path, durable=True) as partial, partial.open("wb") as file:
            watched = _WatchedFile(file)
            write(watched)  # type: ignore[arg-type]
    except BaseException as error:
        # torch.save turns a failed write into a RuntimeError about positions: what the file saw
        # tells the cause.
        cause = error if isinstance(error, OSError) else watched and watched.error
        if isinstance(cause, OSError) and cause.errno in FULL_DISK:
            kept = "the former one is intact" if path.exists() else "nothing was written"
            raise UserError(f"cannot write {path}: {os.strerror(cause.errno)} ({kept})") from error
        raise


class _WatchedFile:
    """A binary file that remembers the error of a failed write."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()
