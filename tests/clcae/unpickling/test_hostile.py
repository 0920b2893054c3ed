"""Files made to run code, and damaged ones: each is refused in one line.

Every test that carries a command has it touch a canary; afterwards there must be none. Two of them
show first that Python's own unpickler does run the file.
"""

import argparse
import gzip
import io
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import nvidia_files
import pytest
import torch
from hostile_files import in_stream, in_zip, proto, streamed, text, zipped

from clcae.pretrained.loading import import_checkpoint
from clcae.pretrained.nvidia import read_nvidia_pickle
from clcae.unpickling.torch_file import read_torch_file


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "something in the file was run"


class Touch:
    """Pickles as a call that touches a file."""

    def __init__(self, path: Path, function: Callable[..., Any] = os.system) -> None:
        self.path, self.function = path, function

    def __reduce__(self) -> tuple:
        if self.function is os.system:
            return os.system, (f"touch {self.path}",)
        return self.function, (f"open({str(self.path)!r}, 'w')",)


FUNCTIONS = [os.system, eval, exec]


def test_the_canary_works(tmp_path: Path) -> None:
    # The control: readers that do execute what they read, on our own file, show that it fires.
    # Without it every refusal below might be that of a harmless file.
    pickle.loads(pickle.dumps(Touch(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()
    (tmp_path / "canary").unlink()
    torch.load(io.BytesIO(zipped({"a": Touch(tmp_path / "canary")})), weights_only=False)
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("protocol", range(6))
def test_calls_in_a_pickle(canary: Path, refused: Any, function: Any, protocol: int) -> None:
    refused(pickle.dumps({"G_ema": Touch(canary, function)}, protocol=protocol))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_calls_in_files_of_torch(canary: Path, refused: Any, function: Any) -> None:
    content = {"g_ema": {"a": torch.zeros(2), "b": Touch(canary, function)}}
    name = f".{function.__name__}"
    assert name in refused(zipped(content), readers=(read_torch_file, import_checkpoint))
    assert name in refused(streamed(content), readers=(read_torch_file, import_checkpoint))


def test_a_call_hidden_in_the_memory_of_a_tensor(canary: Path, refused: Any) -> None:
    class Hidden:
        def __init__(self, data: bytes) -> None:
            self.data = data

        def __reduce__(self) -> tuple:
            return torch.storage._load_from_bytes, (self.data,)

    for inner in (pickle.dumps(Touch(canary)), streamed(Touch(canary)), zipped(Touch(canary))):
        refused(nvidia_files.dumps({"G_ema": Hidden(inner)}))
        refused(zipped({"g_ema": Hidden(inner)}))
        refused(streamed({"g_ema": Hidden(inner)}))


def test_calls_within_nvidia_objects(canary: Path, refused: Any) -> None:
    state = {"fc.weight": torch.zeros(2, 2)}
    options = nvidia_files.EasyDict(seed=Touch(canary))
    refused(nvidia_files.dumps({"G_ema": nvidia_files.network("G", state), "options": options}))
    for place in ("_init_kwargs", "_parameters", "forward", "__setstate__", "__class__"):
        network = nvidia_files.network("G", state)
        network.__dict__[place] = {"a": Touch(canary)}
        refused(nvidia_files.dumps({"G_ema": network}), "posix.system")


def test_the_source_of_a_class_is_not_run(canary: Path, tmp_path: Path) -> None:
    source = f"open({str(canary)!r}, 'w')\nclass G:\n    def __init__(self, *a): pass\n"
    network = nvidia_files.network("G", {"fc.weight": torch.ones(2, 2)}, source=source)
    path = tmp_path / "a.pkl"
    nvidia_files.write(path, G_ema=network)
    assert read_nvidia_pickle(path)["G_ema"].state["fc.weight"].sum() == 4
    with pytest.raises(ValueError, match="no stylegan2-ada generator"):
        import_checkpoint(path)


def handmade(path: Path) -> dict[str, bytes]:
    """Pickles by hand, each a known way past a naive allow-list."""
    command = text(f"touch {path}")
    system = b"cposix\nsystem\n"
    ordered = b"ccollections\nOrderedDict\n"
    return {
        "stack global": proto(text("builtins") + text("eval") + b"\x93" + command + b"\x85R"),
        "dotted name": proto(text("collections") + text("OrderedDict.fromkeys") + b"\x93)R"),
        "walk through an allowed module": proto(
            text("torch") + text("serialization.os.system") + b"\x93" + command + b"\x85R"
        ),
        "allowed name with a path": proto(
            text("torch.storage") + text("_load_from_bytes.__globals__") + b"\x93"
        ),
        "instance": proto(b"(" + command + b"iposix\nsystem\n"),
        "object": proto(b"(" + system + command + b"o"),
        "new object": proto(system + command + b"\x85\x81"),
        "new object with keywords": proto(system + command + b"\x85}\x92"),
        "extension registry": proto(b"\x82\x01"),
        "extension registry, wide": proto(b"\x84\x01\x00\x00\x00"),
        "copyreg": proto(b"ccopyreg\n_reconstructor\n" + system + b"c__builtin__\nobject\nN\x87R"),
        "getattr": proto(b"cbuiltins\ngetattr\n" + system + text("__call__") + b"\x86R"),
        "state with __setstate__": proto(ordered + b")R}" + text("__setstate__") + system + b"sb."),
        "state of a function": proto(ordered + b"}" + text("__call__") + b"Nsb"),
        "state with slots": proto(ordered + b")RN}" + text("clear") + system + b"s\x86b"),
        "state of a list": proto(b"]}b"),
        "calling a text": proto(command + command + b"\x85R"),
        "calling data": proto(b"ctorch\nFloatStorage\n" + command + b"\x85R"),
        "appending to a dict": proto(b"}Na"),
        "setting items of a list": proto(b"]" + text("a") + b"Ns"),
        "persistent object": proto(text("x") + b"Q"),
        "persistent text": proto(b"Px\n"),
        "out-of-band buffer": proto(b"\x97"),
        "unknown operation": proto(b"\xff"),
        "object array": proto(
            b"cnumpy\ndtype\n" + text("O8") + b"\x89\x88\x87R}b"
        ),
        "record array": proto(
            b"cnumpy\ndtype\n" + text("f4") + b"\x89\x88\x87R(K\x03" + text("<") + b"]NNtb"
        ),
        "surrogate in a name": proto(b"\x8c\x03\xed\xa0\x80" + text("x") + b"\x93"),
        "no end": b"\x80\x04}",
        "nothing on the stack": proto(b""),
        "mark missing": proto(b"t"),
        "memo missing": proto(b"h\x07"),
    }  # fmt: skip


@pytest.mark.parametrize("name", handmade(Path("x")))
def test_pickles_by_hand(canary: Path, refused: Any, name: str) -> None:
    data = handmade(canary)[name]
    refused(data)
    refused(in_zip(data), readers=(read_torch_file, import_checkpoint))
    refused(in_stream(data), readers=(read_torch_file, import_checkpoint))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("form", ["zip", "stream", "pickle"])
def test_truncated_files(tmp_path: Path, form: str, share: float) -> None:
    content = {"a": torch.arange(500.0), "b": torch.ones(3, dtype=torch.int64)}
    if form == "pickle":
        data = nvidia_files.dumps({"G_ema": nvidia_files.network("G", content)})
    else:
        data = zipped(content) if form == "zip" else streamed(content)
    path = tmp_path / "a.bin"
    path.write_bytes(data[: int(len(data) * share)])
    for read in (read_torch_file, read_nvidia_pickle, import_checkpoint):
        with pytest.raises(ValueError, match=r"a\.bin") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_what_is_often_taken_for_a_checkpoint(tmp_path: Path, refused: Any) -> None:
    refused(gzip.compress(bytes(1 << 24)), "gunzip")
    refused(b"<!DOCTYPE html><html>Google Drive - Quota exceeded</html>", "web page")
    refused(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull")
    refused(b"\x89HDF\r\n", "HDF5")
    refused(b"hello", "no file of PyTorch")
    refused(pickle.dumps({"a": 1}, protocol=4))
    network = proto(b"cdnnlib.tflib.network\nNetwork\n)\x81")
    refused(network, "legacy.py", (read_nvidia_pickle, import_checkpoint))
    for read in (read_torch_file, read_nvidia_pickle, import_checkpoint):
        with pytest.raises(ValueError, match="is a folder"):
            read(tmp_path)
        with pytest.raises(FileNotFoundError, match="nothing"):
            read(tmp_path / "nothing")


def test_official_options_come_as_data(tmp_path: Path) -> None:
    content = {
        "opts": {"device": torch.device("cuda:0"), "more": argparse.Namespace(lr=1e-4)},
        "state_dict": OrderedDict(a=torch.ones(2)),
    }
    for new in (True, False):
        torch.save(content, tmp_path / "a", _use_new_zipfile_serialization=new)
        read = read_torch_file(tmp_path / "a")
        assert read["opts"]["device"] == "cuda:0"
        assert read["opts"]["more"].values == {"lr": 1e-4}
        assert torch.equal(read["state_dict"]["a"], torch.ones(2))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_of_numbers_come_whole(tmp_path: Path, protocol: int) -> None:
    arrays = [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype="i4").reshape(2, 3)),
        np.arange(3, dtype=">f4"),
        np.array(True),
    ]
    content = {"arrays": arrays, "scalar": np.float64(0.5), "count": np.int64(3)}
    torch.save(content, tmp_path / "a", pickle_protocol=protocol)
    read = read_torch_file(tmp_path / "a")
    assert read["scalar"] == 0.5 and read["count"] == 3
    for array, found in zip(arrays, read["arrays"], strict=True):
        assert found.value.dtype == array.dtype and np.array_equal(found.value, array)
