"""The ablation table: mean, spread and paired differences of real row files."""

import statistics
from pathlib import Path

import pytest

from clcae.evaluation.results import Row, write_rows
from scripts.tables import main

VALUES = {"full": [20.0, 21.0, 23.0], "one_token": [19.0, 20.5, 22.0]}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for variant, values in VALUES.items():
        for seed, value in enumerate(values):
            metrics = {"MSE": 0.1, "PSNR": value, "SSIM": 0.5, "perceptual": 1.0, "identity": 0.5}
            row = Row(method="CLCAE", space="F", metrics=metrics, protocol={}, num_images=8)
            write_rows([row], tmp_path / f"portraits-{variant}-seed{seed}" / "table.json")
    return tmp_path


def test_mean_spread_and_paired_difference(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["portraits_ablation", "--runs", str(runs)]) == 0
    out, err = capsys.readouterr()
    mean, deviation = statistics.mean(VALUES["full"]), statistics.stdev(VALUES["full"])
    assert f"| CLCAE | F | 3 | 0.1000 ± 0.0000 | {mean:.2f} ± {deviation:.2f} |" in out
    assert "-0.83 ± 0.29" in out  # of -1, -0.5 and -1
    assert "no finished run of no_alignment" in err


@pytest.mark.parametrize("format_name", ["latex", "csv"])
def test_other_formats(runs: Path, capsys: pytest.CaptureFixture[str], format_name: str) -> None:
    assert main(["portraits_ablation", "--runs", str(runs), "--format", format_name]) == 0
    out = capsys.readouterr().out
    assert ("\\toprule" in out) == (format_name == "latex")
    assert "21.33" in out


def test_no_runs_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["portraits_ablation", "--runs", str(tmp_path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    with pytest.raises(SystemExit, match="2"):
        main(["nothing"])
