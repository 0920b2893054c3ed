"""Files made to fill the memory or to hang, and archives and tensors that lie about their sizes."""

import functools
import io
import pickle
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile_files import in_stream, in_zip, proto, tensor_pickle, text, zipfile_of

from clcae.pretrained.loading import import_checkpoint
from clcae.pretrained.nvidia import read_nvidia_pickle
from clcae.unpickling.torch_file import read_torch_file

BOMBS = {
    "length of bytes": proto(b"\x8e" + struct.pack("<Q", 1 << 62)),
    "length of a text": proto(b"\x8d" + struct.pack("<Q", 1 << 40)),
    "length of an integer": proto(b"\x8b" + struct.pack("<i", 1 << 30)),
    "negative length": proto(b"\x8b" + struct.pack("<i", -1)),
    "place in the memo": proto(b"Nr\xff\xff\xff\xff0" + b"h\x00"),
    "nested tuples": proto(b")" + b"\x85" * 200_000),
    "nested tuples as a key": proto(b"})" + b"\x85" * 200_000 + b"Ns"),
    "nested lists": proto(b"(" * 200_000 + b"l" * 200_000),
    "endless operations": proto(b"N0" * 1_500_000),
    "colliding keys": proto(
        b"}("
        + b"".join(
            b"\x8a\x0a" + (i * ((1 << 61) - 1)).to_bytes(10, "little") + b"N" for i in range(50_000)
        )
        + b"u"
    ),
    "one list many times": proto(
        b"]\x94" + b"".join(b"]\x94(" + b"h" + bytes([i]) * 1 + b"h" + bytes([i]) + b"e"
                             for i in range(100))
    ),
    "large text encoded many times": proto(
        b"c_codecs\nencode\n\x94X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"\x94"
        + text("latin1") + b"\x94" + b"]\x94(" + b"h\x00h\x01h\x02\x86R" * 10_000 + b"e"
    ),
    "large list made a set many times": proto(
        b"cbuiltins\nset\n\x94](" + b"N" * 100_000 + b"e\x94" + b"](" + b"h\x00h\x01\x85R" * 90_000
        + b"e"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(refused: Any, name: str) -> None:
    refused(BOMBS[name], readers=(read_nvidia_pickle, import_checkpoint), seconds=6.0)
    refused(in_zip(BOMBS[name]), readers=(import_checkpoint,), seconds=6.0)


def test_the_handmade_tensor_is_read_where_it_is_honest(tmp_path: Path) -> None:
    data = torch.arange(4.0).numpy().tobytes()
    (tmp_path / "a").write_bytes(in_zip(tensor_pickle(), **{"archive/data/0": data}))
    tensor = read_torch_file(tmp_path / "a")["a"]
    assert torch.equal(tensor, torch.arange(4.0).reshape(2, 2))


@pytest.mark.parametrize(
    "changes",
    [
        {"size": (1 << 40, 1 << 40)},
        {"size": (3, 2)},
        {"size": (-1, 2)},
        {"size": (2,)},
        {"size": (1 << 20,), "stride": (0,)},
        {"size": (2.0, 2)},
        {"size": (True, 2)},
        {"size": [1] * 40, "stride": [1] * 40},
        {"stride": (1 << 62, 1)},
        {"stride": (-2, 1)},
        {"stride": "ab"},
        {"offset": 1},
        {"offset": -1},
        {"offset": 1 << 62},
        {"offset": None},
        {"count": 1 << 60},
        {"count": -1},
        {"count": 5},
        {"count": "4"},
        {"kind": "DoubleStorage"},
        {"kind": "QInt8Storage"},
        {"identity": b"module"},
    ],
)
def test_tensors_that_lie(refused: Any, changes: dict[str, Any]) -> None:
    archive = in_zip(tensor_pickle(**changes), **{"archive/data/0": bytes(16)})
    refused(archive, readers=(read_torch_file, import_checkpoint))


def test_archives_that_lie(refused: Any) -> None:
    readers = (read_torch_file, import_checkpoint)
    good = tensor_pickle()
    for name in ("../../outside", "/etc/outside", "archive\\..\\outside", "a/../../b", "C:outside"):
        refused(in_zip(good, **{name: b"x"}), "outside", readers)
    refused(in_zip(good), "damaged", readers)  # the storage is missing
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", good)
        archive.writestr("archive/data/0", bytes(1 << 26))
    refused(buffer.getvalue(), "compressed", readers)
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = in_zip(good, **{"archive/data.pkl": b"x"})
    refused(twice, "twice", readers)
    refused(in_zip(good, **{"archive/data/0": bytes(16), "archive/byteorder": b"big"}), "endian")
    refused(in_zip(good, **{"archive/constants.pkl": b""}), "TorchScript", readers)
    refused(zipfile_of({"readme.txt": b"hello"}), "none of torch.save", readers)
    data = bytearray(in_zip(good, **{"archive/data/0": bytes(16)}))
    place = data.rindex(b"archive/data/0") - 46  # its entry in the central directory
    data[place + 20 : place + 28] = struct.pack("<II", 1 << 31, 1 << 31)
    refused(bytes(data), "", readers)


def test_checksum_of_an_archive_is_compared(refused: Any) -> None:
    data = bytearray(in_zip(tensor_pickle(), **{"archive/data/0": b"0123456789abcdef"}))
    data[data.index(b"0123456789")] ^= 1
    refused(bytes(data), "CRC", (read_torch_file, import_checkpoint))


def test_memory_that_many_tensors_share(tmp_path: Path) -> None:
    tensor = torch.zeros(1 << 18)
    torch.save({"final_linear.0.weight": tensor, **dict.fromkeys("abcdefghijklmnopqrstuv", tensor)},
               tmp_path / "a")  # fmt: skip
    with pytest.raises(ValueError, match="share memory"):
        import_checkpoint(tmp_path / "a")


def test_widths_without_weights_are_not_allocated(tmp_path: Path) -> None:
    # 60,000 channels on both sides of a convolution would be 130 gigabytes.
    state = {f"noises.noise_{k}": torch.zeros(1, 1, 4, 4) for k in range(3)}
    state |= {"style.1.weight": torch.zeros(1, 1), "input.input": torch.zeros(1, 60_000, 1, 1)}
    state |= {"convs.1.conv.weight": torch.zeros(1, 60_000, 1, 1, 1)}
    torch.save({"g_ema": state}, tmp_path / "a")
    with pytest.raises(ValueError, match=r"numbers is described|missing") as caught:
        import_checkpoint(tmp_path / "a")
    assert "\n" not in str(caught.value)


LAUGHS: tuple = functools.reduce(lambda inner, _: (inner, inner), range(60), ())
PLAIN = pickle.dumps(LAUGHS, protocol=2)[2:-1]
NESTED = {  # tuples of tuples with 2**60 leaves, where a number or a name is due
    **{part: tensor_pickle(**{part: LAUGHS}) for part in ("size", "stride", "offset", "count")},
    "part of a size": tensor_pickle(size=(LAUGHS, 2)),
    "dtype": proto(b"cnumpy\ndtype\n" + PLAIN + b"\x85R"),
    "byte order": proto(b"cnumpy\ndtype\n" + text("f4") + b"\x85R(K\x03" + PLAIN + b"NNNtb"),
    "encoding": proto(b"c_codecs\nencode\n" + text("a") + PLAIN + b"\x86R"),
    "array": proto(b"cnumpy.core.multiarray\nscalar\n" + PLAIN + text("a") + b"\x86R"),
    "name": proto(text("a") + PLAIN + b"\x93"),
    "key": proto(b"}" + PLAIN + b"Ns"),
}


@pytest.mark.parametrize("name", NESTED)
def test_tuples_of_tuples_are_not_formatted(refused: Any, name: str) -> None:
    readers = (read_torch_file, import_checkpoint)
    refused(in_zip(NESTED[name], **{"archive/data/0": bytes(16)}), "", readers, seconds=5.0)
    refused(in_stream(NESTED[name]), "", readers, seconds=5.0)
    refused(NESTED[name], "", (read_nvidia_pickle,), seconds=5.0)


def test_tuples_of_tuples_in_lists_and_options(tmp_path: Path, refused: Any) -> None:
    keys = in_stream(proto(b"}"))[: -len(pickle.dumps([]))] + pickle.dumps([LAUGHS])
    refused(keys, "by something else than text", (read_torch_file, import_checkpoint), seconds=5.0)
    state = {"encoder.styles.0.linear.weight": torch.zeros(2, 2)}
    content = {"state_dict": state, "latent_avg": torch.zeros(2), "opts": {"encoder_type": LAUGHS}}
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"encoder_type is a tuple, expected"):
        import_checkpoint(tmp_path / "a.pt")


def test_an_array_under_many_names_is_not_copied(tmp_path: Path) -> None:
    array = np.zeros(1 << 16, dtype=np.float32)
    names = [f"a{index}" for index in range(20_000)]
    torch.save({"final_linear.0.weight": array, **dict.fromkeys(names, array)}, tmp_path / "a")
    start = time.monotonic()
    tracemalloc.start()
    with pytest.raises(ValueError, match="share memory"):
        import_checkpoint(tmp_path / "a")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20 and time.monotonic() - start < 20
