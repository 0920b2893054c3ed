"""Pairs in shards: as drawn, resumed, refused."""

import json
from pathlib import Path

import pytest
import torch

from clcae.data.pairs import RenderedPairs
from clcae.pretrained.assets import portraits_generator
from clcae.serialization import save
from scripts.render_pairs import main

SETTINGS = ["--generator", "portraits", "--count", "10", "--shard", "4", "--size", "64"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    assert main([*SETTINGS, "--out", str(folder)]) == 0
    return folder


def test_the_pictures_are_those_of_the_codes(folder: Path) -> None:
    pairs = RenderedPairs(root=folder)
    assert len(pairs) == 10
    images, w = pairs.pairs([9, 0, 4])
    generator = portraits_generator()
    expected = generator.synthesize(w, noise="none").clamp(-1, 1)
    assert images.shape == (3, 3, 64, 64)
    assert (images - expected).square().mean() < 0.01  # noise maps are random
    assert not torch.equal(w[0], w[1])


def test_a_run_that_was_stopped_goes_on(folder: Path, tmp_path: Path) -> None:
    assert main([*SETTINGS, "--out", str(tmp_path)]) == 0
    lost = tmp_path / "pairs_00001.safetensors"
    whole = lost.read_bytes()
    lost.unlink()
    kept = (tmp_path / "pairs_00000.safetensors").stat().st_mtime_ns
    assert main([*SETTINGS, "--out", str(tmp_path)]) == 0
    assert lost.read_bytes() == whole == (folder / lost.name).read_bytes()
    assert (tmp_path / "pairs_00000.safetensors").stat().st_mtime_ns == kept


def test_a_generator_of_the_same_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator, file = portraits_generator(), tmp_path / "a" / "g.safetensors"
    arguments = ["--count", "4", "--shard", "2", "--size", "64"]
    file.parent.mkdir()
    save(generator, file, provenance={})
    command = ["--generator", str(file), *arguments, "--out"]
    assert main([*command, str(tmp_path / "pairs")]) == 0
    first = RenderedPairs(root=tmp_path / "pairs").pairs([0, 3])
    generator.w_average += 1
    generator.synthesis.const.data += 1
    save(generator, file, provenance={})
    capsys.readouterr()
    assert main([*command, str(tmp_path / "pairs")]) == 0
    assert "2 earlier shards are made anew" in capsys.readouterr().out
    assert main([*command, str(tmp_path / "expected")]) == 0
    second, expected = (
        RenderedPairs(root=tmp_path / name).pairs([0, 3]) for name in ("pairs", "expected")
    )
    assert torch.equal(second[0], expected[0]) and not torch.equal(second[0], first[0])
    (tmp_path / "pairs" / ".pairs_00000.safetensors.0123abcd.partial").touch()
    assert main([*command, str(tmp_path / "pairs")]) == 0
    assert "anew" not in capsys.readouterr().out and not list(tmp_path.rglob("*.partial"))


def test_other_settings_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads((folder / "pairs.json").read_text())
    assert main([*SETTINGS, "--seed", "1", "--out", str(folder)]) == 1
    error = capsys.readouterr().err
    assert "seed" in error and len(error.splitlines()) == 1
    assert json.loads((folder / "pairs.json").read_text()) == before


@pytest.mark.parametrize(
    "arguments", [["--size", "128"], ["--generator", "nothing.pt", "--size", "64"]]
)
def test_mistakes_get_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main([*SETTINGS, *arguments, "--out", str(tmp_path / "pairs")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list((tmp_path / "pairs").glob("*.safetensors"))


def test_what_is_no_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="render_pairs"):
        RenderedPairs(root=tmp_path)
    (tmp_path / "a.safetensors").write_bytes(b"no shard")
    with pytest.raises(ValueError, match=r"a\.safetensors"):
        RenderedPairs(root=tmp_path)
