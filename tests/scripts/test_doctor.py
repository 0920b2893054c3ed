"""The account of an installation: this one's, as it is."""

import json
import re
import shutil
import tomllib
from pathlib import Path

import numpy
import pytest
import torch

from clcae.ops import kernels
from clcae.pretrained.assets import FOLDER
from scripts.doctor import EXTRAS, OFFICIAL, ROOT, configured, main


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    assert main(["--json"]) == 0
    told: dict[str, dict[str, object]] = json.loads(capsys.readouterr().out)
    return told


def test_the_report_is_of_this_installation(report: dict[str, dict[str, object]]) -> None:
    assert list(report) == ["versions", "devices", "operators", "packages", "weights", "assets"]
    assert not any("error" in section for section in report.values())
    assert report["versions"]["torch"] == torch.__version__
    assert report["versions"]["numpy"] == numpy.__version__
    assert (report["versions"]["C++ compiler"] is None) == (shutil.which("c++") is None)
    assert len(report["devices"]) == 1 + torch.cuda.device_count()


def test_operators_have_a_form_and_a_reason(report: dict[str, dict[str, object]]) -> None:
    status = kernels.status()
    own = {"backend": "kernel" if status.usable else "torch", "why": status.reason}
    assert report["operators"]["bias_act"] == report["operators"]["upfirdn2d"] == own
    assert set(report["operators"]) == {
        *("bias_act", "upfirdn2d", "conv2d_resample", "modulated_conv2d"),
    }


def test_every_shipped_file_loads(report: dict[str, dict[str, object]]) -> None:
    names = {path.stem for path in FOLDER.glob("*.safetensors")}
    assert set(report["assets"]) == names and "generator" in names
    assert all(entry["loads"] for entry in report["assets"].values())  # type: ignore[index]


def test_every_file_that_a_config_names_has_a_purpose() -> None:
    names = configured()
    assert "stylegan2-ffhq-config-f.pt" in names and len(names) >= 4
    assert set(names) <= set(OFFICIAL)


def test_every_extra_has_a_purpose_and_no_other_is_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"])
    assert set(EXTRAS) == extras - {"dev"}


def test_weights_are_found_where_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    trunk = tmp_path / "home" / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth"
    trunk.parent.mkdir(parents=True)
    trunk.write_bytes(bytes(2**20))
    (tmp_path / "model_ir_se50.pth").write_bytes(bytes(2**21))
    assert main(["--weights", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()

    def line(name: str) -> str:
        return next(line for line in lines if line.split()[:1] == [name])

    assert "2.0 MiB" in line("model_ir_se50.pth") and str(tmp_path) in line("model_ir_se50.pth")
    assert "1.0 MiB" in line(trunk.name)
    assert "not found" in line("stylegan2-ffhq-config-f.pt")
    states = {line.index("not found") for line in lines if "not found" in line}
    assert len(states) == 1  # columns stand below one another


def test_a_broken_part_is_a_finding(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("this driver\nis too old")

    monkeypatch.setattr(kernels, "status", broken)
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "error  RuntimeError: this driver is too old" in out
    assert re.search("identity +loads", out)  # the rest goes on


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "--json | jq" in capsys.readouterr().out
