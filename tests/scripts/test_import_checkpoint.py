"""The command: what it prints, writes, and says when it cannot."""

import subprocess
import sys
from pathlib import Path

import nvidia_files
import pytest
import torch
from official_files import nvidia_state

import clcae
from clcae.methods.e4e import E4E
from clcae.pretrained.layouts import LAYOUTS
from clcae.pretrained.rosinality import export_rosinality
from clcae.serialization import read_metadata, save
from clcae.stylegan2 import Generator
from scripts.import_checkpoint import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(0)
    return Generator(resolution=8, z_dim=4, w_dim=4, mapping_layers=2, channels=[4, 3]).eval()


@pytest.fixture
def official(tmp_path: Path, generator: Generator) -> Path:
    path = tmp_path / "generator.pt"
    export_rosinality(generator, path)
    return path


def test_native_file_and_report(
    tmp_path: Path, official: Path, generator: Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "native.safetensors"
    assert main([str(official), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "generator.pt: rosinality generator (g_ema)" in printed.out
    assert "keys used" in printed.out and "0 keys ignored" in printed.out
    loaded = clcae.load_generator(out).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in generator.state_dict().items())
    provenance = read_metadata(out).provenance
    assert provenance["file"] == "generator.pt" and len(str(provenance["sha256"])) == 64


def test_pickle_to_rosinality(tmp_path: Path, generator: Generator) -> None:
    path, out = tmp_path / "a.pkl", tmp_path / "a.pt"
    state = nvidia_state(generator)
    nvidia_files.write(path, G_ema=nvidia_files.network("Generator", state, z_dim=4, w_dim=4))
    assert main([str(path), "--out", str(out), "--export", "rosinality"]) == 0
    assert set(torch.load(out, weights_only=True)) == {"g_ema", "latent_avg"}
    loaded = clcae.load_generator(out).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in generator.state_dict().items())


def test_failures_are_one_line_and_leave_nothing(
    tmp_path: Path, official: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out" / "a.safetensors"
    broken = tmp_path / "broken.pt"
    broken.write_bytes(official.read_bytes()[:-100])
    disc = tmp_path / "folder"
    disc.mkdir()
    for arguments, words in (
        ([tmp_path / "nothing.pt"], "no such file"),
        ([broken], "damaged or cut short"),
        ([disc], "is a folder"),
        ([official, "--which", "D"], "has no 'D': g_ema, g, d"),
        ([official, "--generator", tmp_path / "none.pt"], "there is no file"),
    ):
        assert main([*map(str, arguments), "--out", str(out)]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("import_checkpoint.py: ") and printed.err.count("\n") == 1
        assert words in printed.err
        assert not out.parent.exists()
    assert main([str(official), "--out", str(disc)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(disc.iterdir())
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    "arguments", [[], ["a.pt"], ["a.pt", "--out", "b", "--image-size", "x"], ["--outt"]]
)
def test_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: import_checkpoint.py" in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text.count("python scripts/import_checkpoint.py") >= 5
    assert all(layout.name in text for layout in LAYOUTS)


def test_as_a_process(tmp_path: Path, official: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "import_checkpoint.py")]
    done = subprocess.run(
        [*command, official, "--out", "native.safetensors"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "written: native.safetensors" in done.stdout
    failed = subprocess.run(
        [*command, "nothing.pt", "--out", "b"], cwd=tmp_path, capture_output=True, text=True
    )
    assert failed.returncode == 1
    assert failed.stderr == "import_checkpoint.py: nothing.pt: no such file\n"
    assert not (tmp_path / "b").exists()


def test_native_file_made_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    generator = Generator(resolution=16, z_dim=4, w_dim=4, mapping_layers=1, channels=[8, 4, 4])
    generator.load_state_dict({k: v.half().float() for k, v in generator.state_dict().items()})
    method = E4E(generator=generator, image_size=32, stem_channels=4, stages=((4, 1),) * 4, width=4)
    whole, small = tmp_path / "whole.safetensors", tmp_path / "small.safetensors"
    save(method, whole, provenance={"made": "by the test"})
    save(generator, tmp_path / "generator.safetensors", provenance={})
    beside = "generator=generator.safetensors"
    assert main([str(whole), "--out", str(small), "--half", "--beside", beside]) == 0
    assert small.stat().st_size < 0.6 * whole.stat().st_size
    assert read_metadata(small).provenance == {"made": "by the test"}
    loaded = clcae.load_method(small)
    for key, value in method.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value.half().to(value.dtype))
    assert main([str(whole), "--out", str(small)]) == 1
    assert "is a native file already" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([str(whole), "--out", str(small), "--beside", "generator"])
