"""Files as users have them: of older code, wrapped, beside metadata; or of other methods."""

import argparse
import collections
import datetime
import io
import pathlib
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import official
import pytest
import torch
from hostile_files import zipfile_of, zipped
from official_files import e4e_to_checkpoint
from omegaconf import OmegaConf
from small_methods import small_e4e
from torch import Tensor, nn

import clcae
from clcae.pretrained.frozen import load_arcface
from clcae.pretrained.loading import import_checkpoint
from clcae.pretrained.rosinality import generator_to_state
from clcae.stylegan2 import Generator
from clcae.unpickling.torch_file import read_torch_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.pt"


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(0)
    made = Generator(resolution=16, z_dim=12, w_dim=12, mapping_layers=2, channels=[8, 6, 4])
    made.w_average.normal_()
    return made.eval()


def same(first: nn.Module, second: nn.Module, but: str = "no such key") -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a if but not in k)


def without_noise(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if "noises." not in key}


def test_training_checkpoints_without_noise_maps(path: Path, generator: Generator) -> None:
    state, average = generator_to_state(generator)
    content = {"g": without_noise(state), "g_ema": without_noise(state), "args": {}}
    torch.save({**content, "latent_avg": average}, path)
    imported = [import_checkpoint(path) for _ in range(2)]
    torch.manual_seed(5)  # nor does the caller's seed matter
    imported.append(import_checkpoint(path))
    for each in imported:
        assert "the file has no noise maps (noises.*): drawn from a fixed seed" in each.report.notes
        assert same(each.module, imported[0].module)
        assert same(each.module, generator, but="noise")
    noise = torch.cat([layer.noise.flatten() for layer in imported[0].module.synthesis.layers])
    assert abs(noise.mean()) < 0.2 and 0.8 < noise.std() < 1.2
    half = {k: v for k, v in state.items() if "noise_2" not in k}
    torch.save({"g_ema": half, "latent_avg": average}, path)
    with pytest.raises(ValueError, match=r"1 missing \(noises\.noise_2\)"):
        import_checkpoint(path)


def test_a_decoder_without_noise_maps(path: Path) -> None:
    method = small_e4e()
    content = e4e_to_checkpoint(method)
    torch.save({**content, "state_dict": without_noise(content["state_dict"])}, path)
    imported = import_checkpoint(path)
    assert any("no noise maps" in note for note in imported.report.notes)
    assert same(imported.module, method, but="noise")


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."]
)
def test_wrappers_of_networks(path: Path, generator: Generator, prefix: str) -> None:
    state, average = generator_to_state(generator)
    wrapped = {f"{prefix}{key}": value for key, value in state.items()}
    for content in ({"g_ema": wrapped, "latent_avg": average}, {**wrapped, "latent_avg": average}):
        torch.save(content, path)
        imported = import_checkpoint(path)
        assert same(imported.module, generator)
        assert any("without the module. or _orig_mod." in note for note in imported.report.notes)


def test_wrappers_of_a_part_and_of_other_layouts(path: Path) -> None:
    method = small_e4e()
    content = e4e_to_checkpoint(method)
    for old, new in (("encoder.", "encoder.module."), ("encoder.", "module.encoder.")):
        state = {key.replace(old, new, 1): value for key, value in content["state_dict"].items()}
        torch.save({**content, "state_dict": state}, path)
        assert same(clcae.load_method(path), method)
    state = official.state_dict("arcface_irse50")
    torch.save({f"module.{key}": value for key, value in state.items()}, path)
    assert same(load_arcface(path), import_checkpoint(path).module)


def metadata() -> dict[str, Any]:
    return {
        "path": pathlib.Path("runs/a"),
        "windows": pathlib.PureWindowsPath("C:/runs/a"),
        "counts": collections.defaultdict(int, {"a": 3}),
        "lists": collections.defaultdict(list, {"a": [1]}),
        "counter": collections.Counter({30: 2}),
        "deque": collections.deque([1.5, 2.5], maxlen=2),
        "when": datetime.datetime(2024, 5, 6, tzinfo=datetime.UTC),
        "took": datetime.timedelta(hours=3),
        "fid": np.float64(3.5),
        "step": np.int64(7),
        "done": np.bool_(True),
        "name": np.str_("ffhq"),
        "names": np.array(["a", "bc"]),
        "options": argparse.Namespace(lr=np.float32(0.5), out=pathlib.Path("a/b")),
        "simple": types.SimpleNamespace(a=1),
        "config": OmegaConf.create({"a": {"b": [1, "x", None]}, "lr": 1e-3}),
    }


@pytest.mark.parametrize("protocol", [2, 4])
def test_metadata_beside_weights(path: Path, generator: Generator, protocol: int) -> None:
    state, average = generator_to_state(generator)
    torch.save(
        {"g_ema": state, "latent_avg": average, **metadata()}, path, pickle_protocol=protocol
    )
    read = read_torch_file(path)
    assert (read["path"], read["windows"]) == ("runs/a", "C:\\/runs/a")
    assert (read["counts"], read["lists"], read["counter"]) == ({"a": 3}, {"a": [1]}, {30: 2})
    assert read["deque"] == [1.5, 2.5] and read["simple"].values == {"a": 1}
    assert (read["fid"], read["step"], read["done"], read["name"]) == (3.5, 7, True, "ffhq")
    assert read["options"].values == {"lr": 0.5, "out": "a/b"}
    imported = import_checkpoint(path)
    assert same(imported.module, generator)
    assert {"path", "config", "fid"} <= {*imported.report.ignored}


def test_metadata_beside_a_bare_state_dict(path: Path, generator: Generator) -> None:
    state, average = generator_to_state(generator)
    torch.save({**state, "latent_avg": average, "epoch": 3, "log": Path("a")}, path)
    imported = import_checkpoint(path)
    assert same(imported.module, generator) and imported.report.ignored == ("epoch", "log")
    torch.save({**state, "latent_avg": average, "log": [{"a": (torch.ones(1),)}]}, path)
    with pytest.raises(ValueError, match=r"1 names that no rosinality .* has \(log\)"):
        import_checkpoint(path)


def test_what_holds_a_network_says_how_to_save_its_weights(path: Path) -> None:
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters())
    for content in (optimizer, {"g_ema": [optimizer]}):
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"torch\.save\(network\.state_dict\(\)") as caught:
            import_checkpoint(path)
        assert "torch.optim" in str(caught.value) and "weights_only" not in str(caught.value)


def repacked(data: bytes, rename: Callable[[str], str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.infolist():
            new.writestr(rename(entry.filename), old.read(entry))
    return buffer.getvalue()


def test_archives_that_were_packed_again(tmp_path: Path, path: Path) -> None:
    whole = zipped({"a": torch.ones(2)})
    cases = {
        "without the folder": repacked(whole, lambda name: name.split("/", 1)[1]),
        "holds an unpacked file of torch.save in 'x/archive'": repacked(whole, "x/{}".format),
        "holds 'download/model.pt': unpack it first": zipfile_of({"download/model.pt": whole}),
        "none of torch.save": repacked(whole, "readme/{}.txt".format),
    }
    for words, data in cases.items():
        path.write_bytes(data)
        with pytest.raises(ValueError, match="is a zip archive") as caught:
            read_torch_file(path)
        assert words in str(caught.value), words
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/data.pkl").touch()
    with pytest.raises(ValueError, match=r"is a folder, expected a file .*unpacked"):
        read_torch_file(tmp_path / "folder")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/e4e.safetensors").touch()
    with pytest.raises(ValueError, match=r"expected a file, such as .*run/e4e\.safetensors$"):
        read_torch_file(tmp_path / "run")


STEM = "encoder.input_layer.0.weight"
HEAD = {"encoder.styles.0.linear.weight": torch.ones(2, 2)}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"state_dict": {**HEAD, STEM: torch.ones(4, 6, 3, 3)}}, "ReStyle"),
        ({"state_dict": {**HEAD, "encoder.conv1.weight": torch.ones(4, 6, 7, 7)}}, "ReStyle"),
        ({"state_dict": {**HEAD, STEM: torch.ones(4, 1, 3, 3)}}, "sketches or segmentation"),
        ({"state_dict": {**HEAD, STEM: torch.ones(4, 19, 3, 3)}}, "sketches or segmentation"),
        ({"state_dict": {**HEAD, "encoder.conv1.weight": torch.ones(4, 3, 7, 7)}}, "ResNet"),
        ({"state_dict": {"hypernet.a.weight": torch.ones(2)}}, "HyperStyle"),
        ({"state_dict": {**HEAD, "residue.conv.weight": torch.ones(2)}}, "HFGI"),
        ({"mlp.0.weight": torch.ones(2, 2)}, "latent discriminator"),
    ],
)
def test_relatives_are_named_as_what_they_are(path: Path, content: Any, words: str) -> None:
    torch.save({**content, "latent_avg": torch.ones(18, 512), "opts": {}}, path)
    with pytest.raises(ValueError, match=r"a\.pt is a .*, which is not supported") as caught:
        clcae.load_method(path)
    assert words in str(caught.value)
