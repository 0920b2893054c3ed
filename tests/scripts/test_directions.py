"""The command: what it finds, writes and shows, and what it says when it cannot."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from clcae.images import read_image
from clcae.pretrained.rosinality import export_rosinality
from clcae.serialization import read_metadata
from clcae.stylegan2 import Generator
from editing import load_directions
from scripts.directions import main

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "clcae/portraits/assets/directions.safetensors"


@pytest.fixture
def generator(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = Generator(
        resolution=16,
        z_dim=6,
        w_dim=8,
        mapping_layers=2,
        mapping_lr_multiplier=0.01,
        channels=[6, 5, 4],
    )
    network.update_average(num_samples=500)
    path = tmp_path / "small.pt"
    export_rosinality(network, path)
    return path


@pytest.fixture
def samples(tmp_path: Path, generator: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    folder = tmp_path / "samples"
    arguments = ["sample", "--generator", generator, "--num-samples", 90, "--out", folder]
    assert main([*map(str, arguments), "--seed", "3"]) == 0
    assert "90 codes of W" in capsys.readouterr().out
    return folder


def test_codes_pictures_and_scores_of_ones_own(
    tmp_path: Path, generator: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = np.load(samples / "codes.npy")
    assert codes.shape == (90, 8) and codes.dtype == np.float32
    pictures = sorted((samples / "pictures").iterdir())
    assert [p.name for p in pictures[::89]] == ["000000.png", "000089.png"]
    assert read_image(pictures[0]).shape == (3, 16, 16)
    normal = np.arange(1.0, 9.0)
    for name, scores in {"first": codes @ normal, "second": codes[:, :1]}.items():
        np.save(tmp_path / f"{name}.npy", scores)
    out, card = tmp_path / "mine.safetensors", tmp_path / "mine.md"
    arguments = ["interfacegan", "--generator", generator, "--codes", samples / "codes.npy"]
    arguments += ["--scores", f"tilt={tmp_path / 'first.npy'}", "--scores", tmp_path / "second.npy"]
    arguments += ["--share", 0.5, "--condition-on", "others", "--out", out, "--card", card]
    assert main(list(map(str, arguments))) == 0
    found = load_directions(out)
    assert list(found) == ["tilt", "second"]
    cosine = float((found["tilt"].vector * found["second"].vector).sum())
    assert abs(cosine) < 0.9
    assert found["tilt"].provenance["conditions"] == ["second"]
    text = card.read_text()
    assert text.startswith("# mine.safetensors") and "--condition-on others" in text
    printed = capsys.readouterr().out
    assert "tilt" in printed and f"written: {out}" in printed
    assert read_metadata(out).provenance["generator"] == "small.pt"


def test_components_and_factors(
    tmp_path: Path, generator: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--generator", str(generator), "--components", "3"]
    pca, factors, whole = (tmp_path / f"{name}.safetensors" for name in ("pca", "sefa", "whole"))
    arguments = ["ganspace", *common, "--num-samples", "3000", "--layers", "1-3"]
    assert main([*arguments, "--semantics", "coordinate", "--out", str(pca)]) == 0
    assert main(["sefa", *common, "--layers", "1-4", "--out", str(factors)]) == 0
    assert main(["sefa", *common, "--whole", "--out", str(whole)]) == 0
    found = load_directions(pca)
    assert list(found) == ["pc0", "pc1", "pc2"]
    assert found["pc2"].layers == (1, 3) and found["pc2"].semantics == "coordinate"
    assert load_directions(factors)["sefa0"].layers == (1, 4)
    assert load_directions(whole)["sefa0"].layers is None
    capsys.readouterr()
    assert main(["show", str(factors)]) == 0
    printed = capsys.readouterr().out
    assert "1-4" in printed and "cosines" in printed and "+1.000" in printed


def test_the_shipped_directions_and_their_strips(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["show", "portraits", "--strips", str(tmp_path), "--names", "smile,age"]
    assert main([*arguments, "--people", "1", "--strengths=-1,0,1"]) == 0
    printed = capsys.readouterr().out
    for name in ("smile", "yaw", "age", "glasses", "beard", "largest leak"):
        assert name in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["age.png", "smile.png"]
    height, width = read_image(tmp_path / "age.png").shape[1:]
    assert height > 2 * 128 and width > 3 * 128


def test_the_portraits_scorer(tmp_path: Path) -> None:
    out = tmp_path / "glasses.safetensors"
    arguments = "interfacegan --attributes glasses --num-samples 300 --share 0.3 --calibrate-on 8"
    assert main([*arguments.split(), "--condition-on", "smile", "--out", str(out)]) == 0
    found, shipped = load_directions(out)["glasses"], load_directions("portraits")["glasses"]
    assert float((found.vector * shipped.vector).sum()) > 0.5
    assert found.provenance["change"] > 0.5
    assert len(found.provenance["leaks"]) == 7 and len(found.provenance["identity"]) == 2


def test_failures_are_one_line(
    tmp_path: Path, generator: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out" / "a.safetensors"
    codes, short = samples / "codes.npy", tmp_path / "short.npy"
    np.save(short, np.arange(80.0))
    np.save(tmp_path / "alike.npy", np.zeros(90))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "text.npy").write_text("scores")
    own = ["interfacegan", "--generator", generator, "--out", out, "--codes"]
    for arguments, words in (
        (["show", tmp_path / "none.pt"], "none.pt: no such file"),
        (["show", generator], "small.pt: g_ema is a dict"),
        (["show", tmp_path / "objects.npy"], "holds object, expected plain num"),
        (["show", "portraits", "--strips", out, "--names", "a"], "no direction 'a'; there are"),
        (["show", "portraits", "--strips", out, "--generator", generator], "128 wide"),
        (["sample", "--generator", generator, "--out", samples], "there already"),
        ([*own, codes], "--codes and --scores go together"),
        ([*own, codes, "--scores", short], "shape (80,), expected (90,)"),
        ([*own, codes, "--scores", tmp_path / "alike.npy"], "four or more that differ"),
        ([*own, codes, "--scores", tmp_path / "objects.npy"], "holds object"),
        ([*own, tmp_path / "text.npy", "--scores", short], "no .npy file"),
        ([*own, codes, "--scores", short, "--share", "nan"], "expected (90,)"),
        (["interfacegan", "--generator", generator, "--out", out], "the portraits scorer reads 64"),
        (["interfacegan", "--attributes", "smile,hair", "--out", out], "attribute 'hair'; there"),
        (["sefa", "--generator", generator, "--layers", "2-9", "--out", out], "layers 2 to 9"),
        (["ganspace", "--num-samples", "1", "--out", out], "1 codes, expected at least two"),
        (["ganspace", "--num-samples", "50", "--layers", "2-99", "--out", out], "layers 2-99"),
        (["sefa", "--device", "cuda:99", "--out", out], "device is"),
        (["sefa", "--device", "gpu", "--out", out], "device is 'gpu', expected auto, cpu"),
        (["sample", "--space", "Z", "--truncation", "0.5", "--out", out], "truncation is 0.5 for"),
        (["sample", "--truncation", "nan", "--out", out], "truncation is nan"),
        (["import", NATIVE, "--space", "Z", "--out", out], "a native file already, which says its"),
    ):
        assert main(list(map(str, arguments))) == 1, arguments
        printed = capsys.readouterr()
        assert printed.err.startswith("directions.py: ") and printed.err.count("\n") == 1
        assert words in printed.err, printed.err
        assert not out.parent.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["find"],
        ["sefa"],
        ["sefa", "--out", "a", "--layers", "6-2"],
        ["ganspace", "--out", "a", "--components", "0"],
        ["interfacegan", "--out", "a", "--space", "X"],
        ["interfacegan", "--out", "a", "--attributes", "smile,,age"],
        ["show", "portraits", "--strengths", "a"],
    ],
)
def test_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: directions.py" in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["--help"], "python scripts/directions.py"),
        (["interfacegan", "--help"], "--condition-on"),
        (["sample", "--help"], "--num-samples"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
        assert words in capsys.readouterr().out


def test_as_a_process(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "directions.py"), "show"]
    failed = subprocess.run(
        [*command, "nothing.pt"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert failed.returncode == 1
    assert failed.stderr.startswith("directions.py: nothing.pt: no such file")
    assert failed.stderr.count("\n") == 1
