"""Reads and writes the safetensors file beneath a native checkpoint: header, tensors, digest."""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from clcae.files import replacing
from clcae.quoting import listing, one_line, parse_json

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
_NUM_NAMED_KEYS = 5  # a message lists so many keys of each kind and counts the others


@dataclass(frozen=True)
class Entry:
    """Place of a tensor within the body of a file."""

    dtype: torch.dtype
    shape: torch.Size
    start: int
    end: int


@contextmanager
def opened(path: str | Path) -> Iterator[Any]:
    """Opens a file with safetensors; its errors become one line.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a native checkpoint")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except (SafetensorError, OSError, UnicodeDecodeError, RecursionError) as error:
        reason = one_line(error, 300)
        raise ValueError(f"{path}: not a readable safetensors file ({reason})") from error


def is_plain(path: str | Path) -> bool:
    """Returns whether a file is a sound safetensors one without a description of ours."""
    try:
        with opened(path) as file:
            return not any(key.startswith("clcae") for key in file.metadata() or {})
    except ValueError:
        return False


def read_plain(path: str | Path) -> dict[str, Tensor]:
    """Reads all tensors of a file; copies, because the reader's lie in the mapped file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged.
    """
    with opened(path) as file:
        return {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118


def read_header(path: str | Path) -> tuple[dict[str, Entry], int]:
    """Lists the tensors of a file and the start of its body; safetensors has checked the header."""
    with opened(path), Path(path).open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = parse_json(file.read(size))
    entries = {}
    for key, fields in header.items():
        if key == "__metadata__":
            continue
        if fields["dtype"] not in _DTYPES:
            name, kind = one_line(key, 80), one_line(fields["dtype"], 40)
            raise ValueError(f"{path}: {name} is of type {kind}, which is not read")
        shape = torch.Size(fields["shape"])
        entries[key] = Entry(_DTYPES[fields["dtype"]], shape, *fields["data_offsets"])
    return entries, 8 + size


def read_weights(
    path: str | Path,
    entries: Mapping[str, Entry],
    start: int,  # of the body
    dtypes: Mapping[str, torch.dtype],  # of the results
) -> tuple[dict[str, Tensor], str]:
    """Reads tensors one after another and converts them; returns them with the file's digest.

    No more memory is taken than the results need.

    Raises:
        ValueError: if the file ends early.
    """
    converted = [entry for key, entry in entries.items() if entry.dtype != dtypes[key]]
    # One piece of memory for all that is converted; many small ones would not be given back.
    scratch = torch.empty(max((e.end - e.start for e in converted), default=0), dtype=torch.uint8)
    digest, weights = hashlib.sha256(), {}
    with Path(path).open("rb") as file:
        for key in sorted(entries):
            entry = entries[key]
            if entry.dtype == dtypes[key]:
                weight = torch.empty(entry.shape, dtype=entry.dtype)
            else:
                weight = scratch[: entry.end - entry.start].view(entry.dtype).reshape(entry.shape)
            # Not mapped into memory: mapped pages would count twice, and the file may change later.
            file.seek(start + entry.start)
            if file.readinto(_bytes_of(weight)) != weight.nbytes:
                raise ValueError(f"{path}: the file ends early")
            update_digest(digest, key, weight)
            weights[key] = weight.to(dtypes[key])
    return weights, digest.hexdigest()


def write_weights(path: str | Path, weights: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes a safetensors file, complete or not at all."""
    with replacing(path) as partial:
        partial.touch()
        customary = partial.stat().st_mode
        try:
            save_file(weights, partial, metadata=metadata)
        except SafetensorError as error:
            if number := re.search(r"\(os error (\d+)\)", str(error)):
                reason = os.strerror(int(number[1]))
                raise OSError(int(number[1]), reason, str(path)) from error
            raise
        partial.chmod(customary)  # safetensors 0.8 lets nobody but the owner read its files


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """Computes the sha256 over names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for key in sorted(weights):
        update_digest(digest, key, weights[key])
    return digest.hexdigest()


def check_fit(
    name: str, own: Mapping[str, Tensor], entries: Mapping[str, Entry], path: str | Path
) -> None:
    """Raises ValueError, with what is wrong, unless a module and a file fit exactly."""
    shared = sorted(own.keys() & entries.keys())
    faults = {
        "missing": sorted(own.keys() - entries.keys()),
        "unexpected": sorted(entries.keys() - own.keys()),
        "of another shape": [
            f"{one_line(key, 80)} {tuple(entries[key].shape)} instead of {tuple(own[key].shape)}"
            for key in shared
            if entries[key].shape != own[key].shape
        ],
        "of another kind of number": [
            f"{one_line(key, 80)} {entries[key].dtype} instead of {own[key].dtype}"
            for key in shared
            if entries[key].dtype.is_floating_point != own[key].is_floating_point()
        ],
    }
    listed = [f"{kind}: {listing(keys, _NUM_NAMED_KEYS)}" for kind, keys in faults.items() if keys]
    if listed:
        raise ValueError(f"{path}: weights do not fit {name}: {'; '.join(listed)}")


def update_digest(digest: Any, key: str, tensor: Tensor) -> None:
    """Adds the name, type, shape and bytes of a tensor to a hashlib digest."""
    digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
    digest.update(_bytes_of(tensor))


def _bytes_of(tensor: Tensor) -> memoryview:
    """Returns the bytes of a contiguous tensor on the CPU, without a copy."""
    # Seen as bytes, because numpy has no bfloat16; a scalar has no dimension to be seen so.
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def weights_digest(module: nn.Module) -> str:
    """Computes sha256 over names, types, shapes and bytes of all weights of a module."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        update_digest(digest, key, value.detach().cpu().contiguous())
    return digest.hexdigest()
