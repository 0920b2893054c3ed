"""Files of torch.save, read as data: the zip archive of today and the stream of before torch 1.6.

Neither torch.load nor Python's unpickler is called, with weights_only or without: the pickle inside
goes through `machine.Machine`, whose table holds weights and nothing else, and the memory of the
tensors is read here, against its declared size and, in an archive, its checksum (which torch.load
does not compare). Everything comes to the CPU. Deviation: the tar files of before torch 0.1.10 and
TorchScript archives are refused.
"""

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import torch
from torch import Tensor

from clcae.pretrained.machine import Machine
from clcae.pretrained.stand_ins import Budget, Storage, StorageType, names

ZIP = b"PK\x03\x04"
MAX_PICKLE = 1 << 28  # bytes of the pickle within an archive
MAX_ENTRIES = 1 << 17
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_CHUNK = 1 << 20
_TELLTALES = {  # how files begin that are often taken for a checkpoint
    b"\x1f\x8b": "is compressed with gzip; run gunzip first",
    b"<": "is a web page; the download went wrong, repeat it",
    b"version https://git-lfs": "is a git-lfs pointer; run git lfs pull",
    b"\x89HDF": "is an HDF5 file, expected one of PyTorch",
    b"": "is no file of PyTorch",
}
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    pickle.UnpicklingError,
    struct.error,
    OSError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    NotImplementedError,
    RecursionError,
    RuntimeError,
    UnicodeError,
    MemoryError,
)


@contextmanager
def reading(path: str | Path) -> Iterator[BinaryIO]:
    """The open file; whatever goes wrong becomes one line that names it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is a folder, empty, damaged, or holds what is not read.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder, expected a file")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty; the download went wrong, repeat it")
    try:
        with path.open("rb") as file:
            yield file
    except _DAMAGE as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(
            f"{path} is damaged or cut short ({reason}); get the file again"
        ) from error
    except ValueError as error:
        raise ValueError(" ".join(f"{path} {error}".split())) from error


def read_torch_file(path: str | Path) -> Any:
    """What torch.save wrote: tensors on the CPU within dicts, lists, numbers and texts.

    Objects without weights come as data: torch.device as "cuda:0", argparse.Namespace as a dict.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is none of torch's, is damaged, or asks for anything but data; one line.
    """
    with reading(path) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        start = file.read(64)
        file.seek(0)
        if start.startswith(ZIP):
            return _read_archive(file, size)
        if start[:1] == pickle.PROTO:
            return read_stream(file, size)
        raise ValueError(telltale(start))


def telltale(start: bytes) -> str:
    """What a file that begins so is, where it is no checkpoint."""
    return next(words for sign, words in _TELLTALES.items() if start.lstrip().startswith(sign))


def read_stream(file: BinaryIO, size: int) -> Any:
    """The format of before torch 1.6: pickles, then the storages one after another.

    Raises ValueError as `read_torch_file`, and the errors of damage that `reading` words.
    """
    budget, storages = Budget(size), dict[str, Storage]()

    def persistent(given: Any) -> Storage:
        kind, key, _, count, view = _storage_id(given, 6)
        if view is not None:
            raise ValueError("holds views of storages, which torch no longer writes")
        if key not in storages:
            storages[key] = _allocate(kind, count, budget)
        return storages[key]

    table = names(budget)
    heads = [Machine(file, size=size, names={}).run() for _ in range(2)]
    if heads != [_MAGIC, _PROTOCOL]:
        raise ValueError("is a pickle, but none of torch.save")
    info = Machine(file, size=size, names={}).run()
    if not isinstance(info, dict) or not info.get("little_endian", True):
        raise ValueError("was written on a big-endian machine")
    content = Machine(file, size=size, names=table, persistent=persistent).run()
    keys = Machine(file, size=size, names={}).run()
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise ValueError("lists other storages than its tensors have")
    for key in keys:
        storage = storages[key]
        width = storage.dtype.itemsize if storage.dtype else 1
        (count,) = struct.unpack("<q", file.read(8))
        if count * width != len(storage.data):
            raise ValueError(f"holds {count} numbers where {len(storage.data) // width} are due")
        _fill(storage.data, file)
    return content


def _read_archive(file: BinaryIO, size: int) -> Any:
    with zipfile.ZipFile(file) as archive:
        entries = _entries(archive, size)
        folder = next((name[: -len("data.pkl")] for name in entries if _is_main(name)), None)
        if folder is None or f"{folder}constants.pkl" in entries:
            raise ValueError(
                "is a zip archive, but none of torch.save"
                if folder is None
                else "is a TorchScript archive, expected a state dict"
            )
        order = entries.get(f"{folder}byteorder")
        if order is not None and order.file_size < 16 and archive.read(order) == b"big":
            raise ValueError("was written on a big-endian machine")
        main = entries[f"{folder}data.pkl"]
        if main.file_size > MAX_PICKLE:
            raise ValueError(f"has a pickle of {main.file_size} bytes")
        budget, storages = Budget(size), dict[str, Storage]()

        def persistent(given: Any) -> Storage:
            kind, key, _, count = _storage_id(given, 5)
            if key not in storages:
                entry = entries[f"{folder}data/{key}"]
                storage = _allocate(kind, count, budget)
                if entry.file_size != len(storage.data):
                    raise ValueError(f"holds {entry.file_size} bytes for {count} numbers")
                with archive.open(entry) as source:
                    _fill(storage.data, source)
                storages[key] = storage
            return storages[key]

        data = archive.read(main)
        table = names(budget)
        return Machine(io.BytesIO(data), size=len(data), names=table, persistent=persistent).run()


def _is_main(name: str) -> bool:
    return PurePosixPath(name).name == "data.pkl" and len(PurePosixPath(name).parts) == 2


def _entries(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The entries by name, all of them plain: stored as they are, inside the archive, once."""
    entries: dict[str, zipfile.ZipInfo] = {}
    if len(archive.infolist()) > MAX_ENTRIES:
        raise ValueError(f"has {len(archive.infolist())} entries")
    for entry in archive.infolist():
        name = entry.filename
        if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
            raise ValueError(f"has an entry that leads outside: {name[:80]!r}")
        if name in entries:
            raise ValueError(f"has the entry {name[:80]!r} twice")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise ValueError(f"has a compressed or encrypted entry, {name[:80]!r}; torch has none")
        entries[name] = entry
    if sum(entry.file_size for entry in entries.values()) > size:
        raise ValueError("has entries larger than the file itself")
    return entries


def _storage_id(given: Any, length: int) -> tuple[Any, ...]:
    """(type, key, place, count, ...) of a storage that a tensor refers to."""
    if type(given) is not tuple or len(given) != length or given[0] != "storage":
        raise ValueError("refers to something else than storages")
    _, kind, key, _, count, *_ = given
    if not isinstance(kind, StorageType) or not isinstance(key, str) or type(count) is not int:
        raise ValueError("refers to a storage of another form")
    return given[1:]


def _allocate(kind: StorageType, count: int, budget: Budget) -> Storage:
    size = count * (kind.dtype.itemsize if kind.dtype else 1)
    budget.spend(size)
    return Storage(kind.dtype, torch.empty(size, dtype=torch.uint8))


def _fill(data: Tensor, source: Any) -> None:
    """Reads exactly as many bytes as `data` has, a piece at a time."""
    view = data.numpy().data
    for first in range(0, len(view), _CHUNK):
        piece = view[first : first + _CHUNK]
        read = source.read(len(piece))
        if len(read) != len(piece):
            raise EOFError("the file ends early")
        piece[:] = read
