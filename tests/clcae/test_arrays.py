"""Numpy's files: plain numbers, no more memory than the file accounts for, damage in one line."""

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from clcae.arrays import read_npy, read_npz


def npy(shape: str, code: str, data: bytes) -> bytes:
    header = f"{{'descr': {code}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


@pytest.mark.parametrize(
    "code",
    [
        *("'<f4,O'", "'O'", "[('a', '<f4'), ('b', '|O')]", "('<f4', (3,))", "'<U4'", "'<c8'"),
        *("'V8'", "'<f4,<f4'", "'<M8[s]'", "[('a', '<f4', (1 << 40,))]"),
    ],
)
def test_the_whole_type_is_matched(tmp_path: Path, code: str) -> None:
    data = npy("(2,)", code, bytes(2 * 12))
    (tmp_path / "a.npy").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", data)
    for read in (lambda: read_npy(tmp_path / "a.npy"), lambda: read_npz(tmp_path / "a.npz")):
        with pytest.raises(ValueError, match=r"a\.np[yz]") as caught:
            read()
        assert "\n" not in str(caught.value) and str(caught.value).isprintable()


def test_numbers_come_as_they_were(tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(6.0).reshape(2, 3),
        "b": np.asfortranarray(np.arange(6, dtype="i4").reshape(2, 3)),
        "c": np.array(3, dtype=">f2"),
        "d": np.zeros((0, 3), np.uint8),
    }
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
        found = read_npy(tmp_path / f"{name}.npy")
        assert found.dtype == array.dtype and np.array_equal(found, array)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "all.npz", **arrays)
        found = read_npz(tmp_path / "all.npz")
        assert found.keys() == arrays.keys()
        assert all(np.array_equal(found[key], array) for key, array in arrays.items())
    assert read_npz(tmp_path / "all.npz", wanted=["b", "x"]).keys() == {"b"}


def test_zeros_that_would_fill_the_memory_are_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in "abc":
            with archive.open(f"{name}.npy", "w") as member:
                member.write(npy("(4, 16777216)", "'<f4'", bytes(1 << 28)))
    assert (tmp_path / "a.npz").stat().st_size < 1 << 20
    for wanted in (["a"], None):
        tracemalloc.start()
        with pytest.raises(ValueError, match="larger than"):
            read_npz(tmp_path / "a.npz", wanted=wanted)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 22


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_damage_is_one_line(tmp_path: Path, method: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("a.npy", npy("(64,)", "'<f4'", np.random.rand(32).tobytes()))
    data = bytearray(buffer.getvalue())
    start = data.index(b"a.npy") + len("a.npy")
    for place in range(start, len(data), 7):
        changed = data.copy()
        changed[place] ^= 0xFF
        (tmp_path / "a.npz").write_bytes(changed)
        line = "a.npz"
        try:
            read_npz(tmp_path / "a.npz")
        except ValueError as error:
            line = str(error)
        assert "a.npz" in line and "\n" not in line
