"""Settings of native files: under a digest, and of the types and ranges their constructors take."""

import json
import random
import struct
from pathlib import Path
from typing import Any

import former
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from clcae.serialization import load, read_metadata, save
from clcae.stylegan2 import Generator
from editing.direction_set import DirectionSet

FORMER = Path(former.__file__).parent / "former"


def rewritten(source: Path, path: Path, *, digest: bool = False, **settings: Any) -> Path:
    """A copy with other settings; None leaves one out. Without the digest unless it is kept."""
    with safe_open(source, framework="pt") as file:
        fields = json.loads(file.metadata()["clcae"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    fields["settings"] |= settings
    if not digest:
        fields.pop("description_sha256", None)
    save_file(tensors, path, metadata={"clcae": json.dumps(fields)})
    return path


@pytest.fixture
def native(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    generator = Generator(resolution=8, z_dim=4, w_dim=4, mapping_layers=1, channels=[3, 2])
    save(generator, tmp_path / "native.safetensors", provenance={"by": "a test"})
    return tmp_path / "native.safetensors"


def test_a_changed_setting_is_noticed(native: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    load(rewritten(native, path, digest=True))
    for read in (load, read_metadata):
        with pytest.raises(ValueError, match=r"a\.safetensors: settings do not match their sha256"):
            read(rewritten(native, path, digest=True, mapping_lr_multiplier=0.05))


def test_files_without_the_digest_load(native: Path, tmp_path: Path) -> None:
    old = rewritten(native, tmp_path / "a.safetensors")
    assert read_metadata(old).digest is None
    assert read_metadata(native).digest is not None
    assert torch.equal(load(old).state_dict()["w_average"], load(native).state_dict()["w_average"])


def test_single_flipped_bits_change_nothing_in_silence(native: Path, tmp_path: Path) -> None:
    data, path = native.read_bytes(), tmp_path / "a.safetensors"
    expected, size = load(native), 8 + struct.unpack("<Q", data[:8])[0]
    assert isinstance(expected, Generator)
    place = data.index(b'\\"settings')
    bits = [(k, bit) for k in range(place, data.index(b'\\"provenance')) for bit in range(8)]
    bits += [(random.Random(k).randrange(size), k % 8) for k in range(400)]
    refused = 0
    for position, bit in bits:
        changed = bytearray(data)
        changed[position] ^= 1 << bit
        path.write_bytes(changed)
        try:
            found, line = load(path), ""
        except ValueError as error:
            found, line = expected, str(error)
        assert line.isprintable()
        refused += bool(line)
        assert isinstance(found, Generator) and found.settings == expected.settings
        for key, value in expected.state_dict().items():
            assert torch.equal(found.state_dict()[key], value)
    assert refused > len(bits) * 0.7


def test_a_file_beside_has_the_same_settings(native: Path, tmp_path: Path) -> None:
    method = former.modules()["projection"]
    save(method.generator, tmp_path / "generator.safetensors", provenance={})
    beside = {"generator": "generator.safetensors"}
    save(method, tmp_path / "method.safetensors", provenance={}, beside=beside)
    load(tmp_path / "method.safetensors")
    generator = load(tmp_path / "generator.safetensors", expected=Generator)
    other = Generator(**{**generator.settings, "mapping_lr_multiplier": 0.05})
    other.load_state_dict(generator.state_dict())
    save(other, tmp_path / "generator.safetensors", provenance={})
    with pytest.raises(ValueError, match="another generator than the one this was made with"):
        load(tmp_path / "method.safetensors")


NAN = float("nan")


@pytest.mark.parametrize(
    ("file", "settings", "words"),
    [
        ("generator", {"mapping_lr_multiplier": "0.01"}, "mapping_lr_multiplier is '0.01'"),
        ("generator", {"mapping_lr_multiplier": True}, "is True, expected float"),
        ("generator", {"mapping_lr_multiplier": 0.0}, "expected a positive number"),
        ("generator", {"mapping_lr_multiplier": -0.01}, "expected a positive number"),
        ("generator", {"mapping_layers": 2.0}, "mapping_layers is 2.0, expected int"),
        ("generator", {"resolution": "16"}, "resolution is '16'"),
        ("generator", {"channels": [12, "12", 12]}, "channels is a list"),
        ("generator", {"channels": {"0": 12}}, "channels is a dict"),
        ("generator", {"extra": 1}, "unexpected keyword"),
        ("discriminator", {"group_size": 0}, "group_size is 0"),
        ("discriminator", {"group_size": -2}, "group_size is -2"),
        ("identity", {"size": -32}, "size is -32"),
        ("identity", {"stages": [[6, "1"], [8, 1]]}, "stages is a list"),
        ("attributes", {"size": -32}, "size is -32"),
        ("attributes", {"binary": [4, 50]}, "columns below"),
        ("attributes", {"binary": [4, -1]}, "columns below"),
        ("face_embedder", {"size": -16}, "size is -16"),
        ("face_embedder", {"embedding_affine": "false"}, "embedding_affine is 'false'"),
        ("face_embedder", {"excitation": 1}, "excitation is 1, expected bool"),
        ("aligner", {"unit_length": "yes"}, "unit_length is 'yes'"),
        ("aligner", {"temperature": 0}, "aligner cannot be built"),
        ("aligner", {"stem_stride": -1}, "stem_stride is -1"),
        ("aligner", {"image_size": [8, 16, 1]}, "expected a side or"),
        ("e4e", {"image_size": [-32, 32]}, "expected a side or"),
        ("e4e", {"image_size": -32}, "expected a side or"),
        ("clcae", {"subtract_average": "no"}, "subtract_average is 'no'"),
        ("clcae", {"feature_level": 7}, "feature_level is 7"),
        ("clcae", {"feature_level": -7}, "feature_level is -7"),
        ("clcae", {"edit_rule": "other"}, "edit_rule is 'other'"),
        ("clcae", {"attention": None}, "attention is None"),
        ("official_clcae", {"dropout": 2.0}, "cannot be built"),
        ("official_clcae", {"edit_rule": ["refined"]}, "edit_rule is a list"),
        ("projection", {"steps": -5}, "-5 steps"),
        ("projection", {"lr": "0.1"}, "lr is '0.1'"),
        ("projection", {"generator": 3}, "generator is 3"),
    ],
)
def test_types_and_ranges(tmp_path: Path, file: str, settings: dict[str, Any], words: str) -> None:
    path = rewritten(FORMER / f"{file}.safetensors", tmp_path / "a.safetensors", **settings)
    with pytest.raises(ValueError, match=r"a\.safetensors: .* cannot be built") as caught:
        load(path)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [NAN, float("inf"), -float("inf")])
def test_numbers_that_are_none(tmp_path: Path, value: float) -> None:
    for file, settings in (
        ("generator", {"mapping_lr_multiplier": value}),
        ("projection", {"lr": value}),
        ("directions", {"entries": [{"unit": value}]}),
    ):
        path = rewritten(FORMER / f"{file}.safetensors", tmp_path / "a.safetensors", **settings)
        with pytest.raises(ValueError, match=r"description is damaged \(.*finite numbers\)"):
            load(path)


def test_the_annotations_cover_every_class(tmp_path: Path) -> None:
    """Every former file passes the check of types: none is refused by its own settings."""
    assert issubclass(DirectionSet, torch.nn.Module)
    files = sorted(FORMER.glob("*.safetensors"))
    for file in files:
        load(rewritten(file, tmp_path / "a.safetensors"))
    assert len(files) == 19


def test_what_a_description_says_is_quoted(native: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for change in (
        {"class": "x\x1b[2J" * 100_000},
        {"format_version": [["x" * 100_000] * 10]},
        {"settings": {"resolution\x1b[2J": "y" * 1_000_000}},
        {"settings": {"resolution": "y" * 1_000_000}},
    ):
        with safe_open(native, framework="pt") as file:
            fields = json.loads(file.metadata()["clcae"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        del fields["description_sha256"]
        save_file(tensors, path, metadata={"clcae": json.dumps(fields | change)})
        with pytest.raises(ValueError, match=r"a\.safetensors") as caught:
            load(path)
        assert str(caught.value).isprintable() and len(str(caught.value)) < 700


def test_names_and_types_of_tensors_are_quoted(native: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with safe_open(native, framework="pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    save_file({**tensors, "x\x1b[2J" * 2_000_000: torch.zeros(1)}, path, metadata=metadata)
    with pytest.raises(ValueError, match="unexpected") as caught:
        load(path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 700
