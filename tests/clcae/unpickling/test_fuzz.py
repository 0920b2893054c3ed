"""Thousands of files with flipped bytes: each is refused in one line, or read as something right.

Right means: where a checksum covers the byte (our safetensors, the storages of an archive) the
values are exactly those written. Elsewhere (a .pkl, the stream of before torch 1.6, the pickle's
own text) nothing can tell a changed weight from a trained one; there a file that is read has
tensors no larger than the file, every one of them whole in its memory. Nothing crashes, hangs or
takes much memory in any case.
"""

import io
import random
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nvidia_files
import pytest
import torch
from torch import Tensor, nn

from clcae import serialization
from clcae.pretrained.loading import import_checkpoint
from clcae.pretrained.nvidia import read_nvidia_pickle
from clcae.pretrained.rosinality import export_rosinality
from clcae.serialization import load, register, save
from clcae.stylegan2 import Generator
from clcae.unpickling.torch_file import read_torch_file

# Changed files of each form.
COUNTS = [pytest.param(1500, id="few"), pytest.param(6000, id="many", marks=pytest.mark.slow)]
SECONDS = 60.0  # a hang, not a slow machine
MEMORY = 256 << 10  # kibibytes that all cases of a form may add


def contents() -> dict[str, Tensor]:
    return {
        "weight": torch.arange(24.0).reshape(2, 3, 4),
        "turned": torch.arange(6.0).reshape(2, 3).t(),
        "halved": torch.arange(5.0).half(),
        "count": torch.tensor(7),
    }


def zipped() -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": contents(), "opts": {"device": torch.device("cpu")}}, buffer)
    return buffer.getvalue()


def streamed() -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": contents()}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def pickled() -> bytes:
    return nvidia_files.dumps({"G_ema": nvidia_files.network("G", contents(), z_dim=4)})


def read_pickle(path: Path) -> Any:
    return {"state_dict": read_nvidia_pickle(path)["G_ema"].state}


def variants(data: bytes, count: int, *, seed: int) -> Iterator[tuple[int, bytes]]:
    """Changed copies and the place of the first change: bits, bytes, runs, cuts, doublings."""
    rng = random.Random(seed)
    for _ in range(count):
        changed, place = bytearray(data), rng.randrange(len(data))
        kind = rng.randrange(10)
        if kind < 5:
            changed[place] ^= 1 << rng.randrange(8)
        elif kind < 7:
            changed[place] = rng.randrange(256)
        elif kind == 7:
            count = rng.randrange(1, 9)
            changed[place : place + count] = rng.randbytes(count)
        elif kind == 8:
            del changed[place : place + rng.randrange(1, 64)]
        else:
            changed[place:place] = changed[place : place + rng.randrange(1, 64)]
        yield place, bytes(changed)


def tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors(part)


def outcome(read: Callable[[Path], Any], path: Path) -> tuple[str | None, Any]:
    """The line with which the file is refused, or what was read."""
    try:
        return None, read(path)
    except ValueError as error:
        return str(error), None


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize(
    ("write", "read"),
    [(zipped, read_torch_file), (streamed, read_torch_file), (pickled, read_pickle)],
)
def test_flipped_files(
    tmp_path: Path, write: Callable[[], bytes], read: Callable[[Path], Any], count: int
) -> None:
    data, path = write(), tmp_path / "file.bin"
    path.write_bytes(data)
    whole = read(path)["state_dict"]
    assert all(torch.equal(whole[key], value) for key, value in contents().items())
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for place, changed in variants(data, count, seed=1):
        path.write_bytes(changed)
        line, content = outcome(read, path)
        if line is not None:
            assert "file.bin" in line and "\n" not in line and len(line) < 500, (place, line)
            refused += 1
        for tensor in tensors(content):
            assert tensor.nbytes <= len(changed) + (1 << 18), place
            tensor.clone()  # reads all of its memory
    assert refused > count / 5
    assert time.monotonic() - start < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY


@pytest.mark.parametrize("count", COUNTS)
def test_flipped_generators_are_whole_or_refused(tmp_path: Path, count: int) -> None:
    generator = Generator(resolution=8, z_dim=4, w_dim=4, mapping_layers=1, channels=[3, 2])
    path = tmp_path / "file.bin"
    export_rosinality(generator, path)
    for _, changed in variants(path.read_bytes(), count // 6, seed=3):
        path.write_bytes(changed)
        line, imported = outcome(import_checkpoint, path)
        if line is not None:
            assert "file.bin" in line and "\n" not in line and len(line) < 1500, line
        elif isinstance(imported.module, Generator):
            shapes = {key: value.shape for key, value in generator.state_dict().items()}
            found = imported.module.state_dict()
            assert {key: value.shape for key, value in found.items()} == shapes


def test_storages_of_an_archive_are_right_or_refused(tmp_path: Path) -> None:
    data, path = zipped(), tmp_path / "file.pt"
    first = data.index(torch.arange(24.0).numpy().tobytes())
    for place in range(first, first + 96):
        changed = bytearray(data)
        changed[place] ^= 0x10
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"CRC"):
            read_torch_file(path)


@pytest.mark.parametrize("count", COUNTS)
def test_flipped_native_files_are_right_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(serialization, "_registry", {})

    @register("small")
    class Small(nn.Module):
        def __init__(self, *, width: int) -> None:
            super().__init__()
            self.linear = nn.Linear(width, width)
            self.register_buffer("count", torch.tensor(3))

    path, module = tmp_path / "file.safetensors", Small(width=5)
    save(module, path, provenance={"command": "make"})
    data, expected = path.read_bytes(), module.state_dict()
    assert all(torch.equal(load(path).state_dict()[key], expected[key]) for key in expected)
    refused, start = 0, time.monotonic()
    for place, changed in variants(data, count, seed=2):
        path.write_bytes(changed)
        line, loaded = outcome(load, path)
        if line is not None:
            assert "\n" not in line, place
            refused += 1
            continue
        weights = loaded.state_dict()
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[key], expected[key]) for key in expected), place
    assert refused > count / 2
    assert time.monotonic() - start < SECONDS
