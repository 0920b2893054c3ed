"""The safetensors file beneath a native checkpoint: its header, its tensors, their bytes."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies within the body of a file."""

    dtype: torch.dtype
    shape: torch.Size
    start: int
    end: int


@contextmanager
def opened(path: str | Path) -> Iterator[Any]:
    """The safetensors reader of a file, its errors in the project's words."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a native checkpoint")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except (SafetensorError, OSError, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: not a readable safetensors file ({reason})") from error


def read_header(path: str | Path) -> tuple[dict[str, Entry], int]:
    """The tensors of a file and where its body starts; safetensors has checked the header."""
    with opened(path), Path(path).open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    entries = {}
    for key, fields in header.items():
        if key == "__metadata__":
            continue
        if fields["dtype"] not in _DTYPES:
            raise ValueError(f"{path}: {key} is of type {fields['dtype']}, which is not read")
        shape = torch.Size(fields["shape"])
        entries[key] = Entry(_DTYPES[fields["dtype"]], shape, *fields["data_offsets"])
    return entries, 8 + size


def read_into(weight: Tensor, file: BinaryIO, place: int, path: str | Path) -> None:
    """Fills a weight from a place in a file, with no other memory."""
    # Not mapped into memory: mapped pages would count twice, and the file may change later.
    file.seek(place)
    if file.readinto(bytes_of(weight)) != weight.nbytes:  # type: ignore[attr-defined]
        raise ValueError(f"{path}: the file ends early")


def update_digest(digest: Any, key: str, tensor: Tensor) -> None:
    """Adds the name, type, shape and bytes of a tensor to a hashlib digest."""
    digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
    digest.update(bytes_of(tensor))


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU, without a copy."""
    # Seen as bytes, because numpy has no bfloat16; a scalar has no dimension to be seen so.
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def weights_digest(module: nn.Module) -> str:
    """Computes sha256 over names, types, shapes and bytes of all weights of a module."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        update_digest(digest, key, value.detach().cpu().contiguous())
    return digest.hexdigest()
