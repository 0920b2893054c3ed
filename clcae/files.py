"""Writes files whole or not at all (a temporary name, then a rename), and computes their digest."""

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
LONGEST_NAME = 255  # bytes, of most file systems
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.partial")


@contextmanager
def replacing(path: str | Path, *, durable: bool = False) -> Iterator[Path]:
    """Yields a temporary name beside `path`, and renames it to `path` once the block has succeeded.

    A link is followed: the file that it points to is replaced. What a pipe is given is written into
    it, once the block has succeeded. The temporary file is removed if the block fails.

    Args:
        path: the file to write; its folder is made if missing.
        durable: synchronise file and folder, so that the file survives a power failure.

    Raises:
        ValueError: if the name is that of a folder, a device or a socket.
    """
    if Path(path).is_fifo():  # before the link is followed: that of /dev/stdout leads to no name
        with _into_pipe(Path(path)) as partial:
            yield partial
        return
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise ValueError(f"{path} is {_kind(target)}, expected the name of a file to write")
    target.parent.mkdir(parents=True, exist_ok=True)
    ending = f".{secrets.token_hex(4)}.partial"
    beginning = os.fsencode(target.name)[: LONGEST_NAME - 1 - len(ending)]
    partial = target.with_name(f".{os.fsdecode(beginning)}{ending}")
    try:
        yield partial
        if durable:
            _synchronize(partial)
        partial.replace(target)
        if durable:
            _synchronize(target.parent)
    except OSError as error:
        # A failed write does not name its file, and nobody knows the temporary name.
        if error.filename is None or partial.name in str(error.filename):
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):  # there is none, or the disk is read-only, which is told already
            partial.unlink()


@contextmanager
def _into_pipe(pipe: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        partial = Path(folder) / pipe.name
        yield partial
        try:
            with partial.open("rb") as source, pipe.open("wb") as target:
                shutil.copyfileobj(source, target)
        except BrokenPipeError as error:
            raise ValueError(f"{pipe}: its reader has gone before all was written") from error


def _kind(path: Path) -> str:
    kinds = {"a folder": path.is_dir(), "a socket": path.is_socket(), "a pipe": path.is_fifo()}
    return next((kind for kind, is_one in kinds.items() if is_one), "a device")


def write_text(path: str | Path, text: str, *, durable: bool = False) -> None:
    """Writes a UTF-8 text file, whole or not at all; see `replacing`."""
    with replacing(path, durable=durable) as partial:
        partial.write_text(text, encoding="utf-8")


def check_regular(path: str | Path) -> None:
    """Refuses what could block or never end when it is read: pipes, devices, sockets, folders.

    Raises:
        OSError: if there is no such file, or links lead nowhere.
        ValueError: if it is no regular file.
    """
    mode = Path(path).stat().st_mode
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path}: {_kind(Path(path))}, not a file; expected a regular file")


@contextmanager
def locked(
    folder: Path,
    *,
    waits: Callable[[], object] = lambda: None,
) -> Iterator[bool]:
    """Locks a folder, which is made if missing, against other processes while the block runs.

    Args:
        folder: the folder; another process may remove it at the end of its own block.
        waits: called once if another process holds the lock.

    Yields:
        Whether the lock is held: False where the system or the disk has no locks.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = None if fcntl is None else os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue  # removed meanwhile
        try:
            held = handle is not None and _lock(handle, waits)
            if held and handle is not None and not _is_at(handle, folder):
                continue  # it was removed by the process that held the lock
            yield held
            return
        finally:
            if handle is not None:
                os.close(handle)  # and with it the lock


def is_locked(folder: Path) -> bool:
    """Tests whether another process holds a folder by `locked`; False where there are no locks."""
    if fcntl is None:
        return False
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno == errno.EWOULDBLOCK
    else:
        return False
    finally:
        os.close(handle)


def _lock(handle: int, waits: Callable[[], object]) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno != errno.EWOULDBLOCK:
            return False  # a network disk without locks
        waits()
        fcntl.flock(handle, fcntl.LOCK_EX)
    return True


def _is_at(handle: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), folder.stat())
    except FileNotFoundError:
        return False


def sha256(path: str | Path) -> str:
    """Computes the SHA-256 digest of a file, in hexadecimal. Raises as `check_regular`."""
    check_regular(path)
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def leftovers(folder: Path, pattern: str = "*") -> list[Path]:
    """Lists temporary files of `replacing` below a folder, which a killed process left behind.

    Args:
        folder: looked through with all below it.
        pattern: of the names of the files that were to be written.
    """
    found = folder.rglob(f".{pattern}.{8 * '?'}.partial")
    return [path for path in found if _TEMPORARY.fullmatch(path.name)]


def leftovers_of(path: Path) -> list[Path]:
    """Lists temporary files of `replacing` for one file, which a killed process left beside it."""
    folder, beginning = path.parent, f".{path.name}."
    names = [each.name for each in folder.iterdir() if each.name.startswith(beginning)]
    whole = re.compile(re.escape(beginning) + r"[0-9a-f]{8}\.partial")
    return [folder / name for name in names if whole.fullmatch(name)]


def _synchronize(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
