"""Native files: strict, atomic, and harmless whatever they hold."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from clcae import serialization
from clcae.serialization import load, read_metadata, register, save


@pytest.fixture(autouse=True)
def classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serialization, "_registry", {})
    register("part")(Part)
    register("whole")(Whole)


class Part(nn.Module):
    def __init__(self, *, width: int, taps: tuple[float, ...] = (1.0,)) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.register_buffer("taps", torch.tensor(taps))
        self.register_buffer("count", torch.tensor(3))


class Whole(nn.Module):
    def __init__(self, *, part: Part, scale: float) -> None:
        super().__init__()
        self.part = part
        self.scale = nn.Parameter(torch.tensor(scale))


class Unregistered(nn.Module):
    pass


def same(first: nn.Module, second: nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def with_metadata(path: Path, **changes: object) -> None:
    """Changes the description and leaves out its digest, as files were once written."""
    header, body = header_of(path)
    fields = json.loads(header["__metadata__"]["clcae"])
    del fields["description_sha256"]
    header["__metadata__"]["clcae"] = json.dumps({**fields, **changes})
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.safetensors"
    save(Part(width=3, taps=(1.0, 2.0)), path, provenance={"command": "make", "fid": 12.5})
    return path


def test_round_trip_of_nested_modules(tmp_path: Path) -> None:
    module = Whole(part=Part(width=4), scale=0.5)
    save(module, tmp_path / "a.safetensors", provenance={})
    loaded = load(tmp_path / "a.safetensors", expected=Whole)
    assert same(module, loaded)
    assert not loaded.training
    assert loaded.part.settings["width"] == 4


def test_weights_that_share_memory_are_saved(tmp_path: Path) -> None:
    module = Part(width=3)
    module.linear.bias = nn.Parameter(module.linear.weight.detach()[0])
    save(module, tmp_path / "a.safetensors", provenance={})
    assert same(module, load(tmp_path / "a.safetensors"))


def test_file_has_the_customary_permissions(path: Path) -> None:
    (path.parent / "plain").touch()
    assert path.stat().st_mode == (path.parent / "plain").stat().st_mode


def test_metadata_says_what_was_saved(path: Path) -> None:
    metadata = read_metadata(path)
    assert metadata.class_name == "part"
    assert metadata.settings == {"width": 3, "taps": [1.0, 2.0]}
    assert metadata.provenance == {"command": "make", "fid": 12.5}
    assert metadata.dtype == "native"
    assert len(metadata.sha256) == 64


def test_sha256_is_that_of_the_weights_alone(tmp_path: Path) -> None:
    module = Part(width=3)
    save(module, tmp_path / "a", provenance={"by": "one"})
    save(module, tmp_path / "b", provenance={"by": "another"})
    assert read_metadata(tmp_path / "a").sha256 == read_metadata(tmp_path / "b").sha256


def test_half_file_is_smaller_and_loads_as_float32(tmp_path: Path) -> None:
    module = Part(width=64)
    save(module, tmp_path / "full", provenance={})
    save(module, tmp_path / "half", provenance={}, half=True)
    assert (tmp_path / "half").stat().st_size < 0.6 * (tmp_path / "full").stat().st_size
    assert read_metadata(tmp_path / "half").dtype == "float16"
    loaded = load(tmp_path / "half", expected=Part)
    assert loaded.linear.weight.dtype == torch.float32
    assert torch.equal(loaded.linear.weight, module.linear.weight.half().float())
    assert loaded.state_dict()["count"] == 3
    assert module.linear.weight.dtype == torch.float32, "the module itself is left alone"


def test_half_refuses_what_overflows(tmp_path: Path) -> None:
    module = Part(width=2, taps=(1e6,))
    with pytest.raises(ValueError, match="taps exceeds the range of float16"):
        save(module, tmp_path / "a", provenance={}, half=True)
    assert not list(tmp_path.iterdir())


def test_loading_leaves_the_random_state(path: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    load(path)
    assert torch.equal(torch.rand(3), expected)


def test_interrupted_save_leaves_the_older_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(Part(width=9), path, provenance={})
    assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes() == before


def test_save_refuses_what_cannot_be_loaded_again(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Unregistered is not registered; known: part"):
        save(Unregistered(), tmp_path / "a", provenance={})
    with pytest.raises(ValueError, match="do not fit JSON"):
        save(Part(width=1), tmp_path / "a", provenance={"path": tmp_path})
    with pytest.raises(ValueError, match="do not fit JSON"):
        save(Part(width=1), tmp_path / "a", provenance={"fid": float("nan")})
    assert not list(tmp_path.iterdir())


def test_name_belongs_to_one_class() -> None:
    register("part")(Part)
    with pytest.raises(ValueError, match="'part' is taken by"):
        register("part")(Whole)


def test_expected_class(path: Path) -> None:
    assert isinstance(load(path, expected=nn.Module), Part)
    with pytest.raises(ValueError, match=r"holds 'part' \(Part\), expected Whole"):
        load(path, expected=Whole)


def test_unknown_class_lists_the_known_ones(path: Path) -> None:
    with_metadata(path, **{"class": "os.system"})
    with pytest.raises(ValueError, match=r"class 'os\.system' is unknown; known: part, wh"):
        load(path)


def test_unknown_class_within_settings(path: Path) -> None:
    with_metadata(path, settings={"width": {"$class": "subprocess.run", "settings": {}}})
    with pytest.raises(ValueError, match=r"class 'subprocess\.run' is unknown"):
        load(path)


@pytest.mark.parametrize(
    "settings", [{"depth": 3}, {}, {"width": "wide"}, {"width": -1}, {"width": [[]]}]
)
def test_settings_that_do_not_build(path: Path, settings: dict[str, Any]) -> None:
    with_metadata(path, settings=settings)
    with pytest.raises(ValueError, match="part cannot be built from its settings") as error:
        load(path)
    assert "\n" not in str(error.value)


def test_weights_that_do_not_fit_are_all_named(tmp_path: Path) -> None:
    path = tmp_path / "a"
    module = Part(width=3)
    module.extra = nn.Parameter(torch.zeros(1))
    module.taps = torch.ones(7)
    module.count = torch.tensor(1.0)
    del module.linear.bias
    save(module, path, provenance={})
    with pytest.raises(ValueError, match="do not fit Part") as error:
        load(path)
    message = str(error.value)
    assert "missing: linear.bias" in message
    assert "unexpected: extra" in message
    assert "of another shape: taps (7,) instead of (1,)" in message
    assert "of another kind of number: count torch.float32 instead of torch.int64" in message
    assert "\n" not in message


def test_long_lists_of_keys_are_shortened(path: Path) -> None:
    module = Part(width=3)
    for index in range(9):
        module.register_buffer(f"extra{index}", torch.zeros(1))
    save(module, path, provenance={})
    with pytest.raises(ValueError, match=r"extra0, .*extra4 and 4 more$"):
        load(path)


def test_changed_weight_is_noticed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="sha256"):
        load(path)


def test_plain_safetensors_file_is_told_apart(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "a")
    with pytest.raises(ValueError, match=r"without the description.*import_checkpoint"):
        load(tmp_path / "a")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.99])
def test_truncated_file_is_one_line(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match="not a readable safetensors file") as error:
        load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 8) + b"\xff" * 8,
        struct.pack("<Q", 200_000) + b"[" * 200_000,
        struct.pack("<Q", 4) + b"null",
        struct.pack("<Q", 61)
        + b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}}'[:61],
        b"\x80\x04cposix\nsystem\n",  # the beginning of a pickle
    ],
)
def test_hostile_header_is_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(ValueError, match="not a readable safetensors file") as error:
        load(tmp_path / "a")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", "[" * 100_000, '{"class": "part", "settings": 3}']
)
def test_hostile_description_is_one_line(tmp_path: Path, text: str) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "a", metadata={"clcae": text})
    with pytest.raises(ValueError, match="description is damaged") as error:
        read_metadata(tmp_path / "a")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes", [{"class": 3}, {"settings": []}, {"provenance": "none"}, {"sha256": None}]
)
def test_description_with_wrong_types(path: Path, changes: dict[str, object]) -> None:
    with_metadata(path, **changes)
    with pytest.raises(ValueError, match="a field has the wrong type"):
        load(path)


def test_later_format_is_refused(path: Path) -> None:
    with_metadata(path, format_version=2)
    with pytest.raises(ValueError, match="format version 2, expected 1"):
        load(path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"width": 1 << 25}, "a setting is 33554432"),
        ({"width": 20_000}, "a tensor of 400000000 numbers is described, but not given"),
        ({"width": 3, "taps": [1.0] * 20_000, "count": 10**30}, "a setting is 1000000000000"),
        ({"width": [[[[-(10**9)]]]]}, "a setting is -1000000000"),
    ],
)
def test_settings_that_would_fill_the_memory(path: Path, settings: dict, words: str) -> None:
    with_metadata(path, settings=settings)
    with pytest.raises(ValueError, match=words) as error:
        load(path)
    assert "\n" not in str(error.value)


def test_settings_that_would_never_end(path: Path) -> None:
    @register("deep")
    class Deep(nn.Module):
        def __init__(self, *, depth: int) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(1, 1) for _ in range(depth))

    with_metadata(path, **{"class": "deep", "settings": {"depth": 10_000_000}})
    with pytest.raises(ValueError, match="parameters are described, but not given"):
        load(path)


def test_nested_settings_are_one_line(path: Path) -> None:
    header, body = header_of(path)
    fields = json.loads(header["__metadata__"]["clcae"])
    header["__metadata__"]["clcae"] = json.dumps({**fields, "settings": 0}).replace(
        '"settings": 0', '"settings": ' + '{"width": {"$class": "part", "settings": ' * 5000
        + "{}" + "}}" * 5000
    )  # fmt: skip
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    with pytest.raises(ValueError, match=r"damaged|cannot be built") as error:
        load(path)
    assert "\n" not in str(error.value)


def test_overlapping_and_foreign_tensors_are_refused(path: Path) -> None:
    data = path.read_bytes()
    header, body = header_of(path)
    for changes in (
        {"taps": {**header["taps"], "data_offsets": header["linear.bias"]["data_offsets"]}},
        {"taps": {**header["taps"], "data_offsets": [0, 1 << 40]}},
        {"taps": {**header["taps"], "dtype": "F4"}},
        {"taps": {**header["taps"], "shape": [1 << 40, 1 << 40]}},
    ):
        text = json.dumps({**header, **changes}).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + body)
        with pytest.raises(ValueError, match=r"a\.safetensors") as error:
            load(path)
        assert "\n" not in str(error.value)
    path.write_bytes(data)
    load(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        load(tmp_path / "a")
