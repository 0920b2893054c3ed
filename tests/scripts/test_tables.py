"""tables.py: papers' tables beside real row files, the runs' table and the table over seeds."""

import csv
import io
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clcae.evaluation.rows import Row, write_rows
from clcae.images import write_png
from scripts.tables import main

ROOT = Path(__file__).resolve().parents[2]
VALUES = {"full": [20.0, 21.0, 23.0], "one_token": [19.0, 20.5, 22.0]}
PUBLISHED = {
    "clcae": 11,
    "e4e": 1,
    "hyperstyle_table2": 8,
    "sfe_table1": 12,
    "sfe_table2": 6,
    "sfe_table4": 3,
    "styleres_table1": 8,
    "styleres_table2": 6,
}
FORMATS = ["csv", "html", "latex", "markdown"]
CELEBA = {"images": "CelebA-HQ test", "resolution": "256 x 256"}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for variant, values in VALUES.items():
        for seed, value in enumerate(values):
            metrics = {"MSE": 0.1, "PSNR": value, "SSIM": 0.5, "perceptual": 1.0, "identity": 0.5}
            row = Row(method="CLCAE", space="F", metrics=metrics, protocol={}, num_images=8)
            write_rows([row], tmp_path / f"portraits-{variant}-seed{seed}" / "table.json")
    return tmp_path


@pytest.fixture
def results(tmp_path: Path) -> Path:
    protocol = {
        "LPIPS": {**CELEBA, "network": "LPIPS v0.1 (alex)", "direction": "lower"},
        "MSE": {**CELEBA, "scale": "[0, 1]", "direction": "lower"},
        "FID smile-": {**CELEBA, "network": "another"},
        "ms": {"device": "V100"},
    }
    metrics = {"LPIPS": 0.0123, "MSE": 0.0001, "FID smile-": 20.0, "ms": 31.0}
    names = ["<b>own</b> | \\x", "=own"]
    rows = [
        Row(method=name, space="F", metrics=metrics, protocol=protocol, num_images=2824)
        for name in names
    ]
    other = Row(method="x", space="W", metrics={"accuracy": 1.0}, protocol={}, num_images=1)
    path = tmp_path / "results.jsonl"
    write_rows([*rows, other], path)
    return path


def csv_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_tables_print_in_every_format(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for format_name in FORMATS:
        assert main([name, "--format", format_name]) == 0
        out, err = capsys.readouterr()
        assert out and not err
        if format_name == "csv":
            assert len(csv_rows(out)) == PUBLISHED[name]
        if format_name == "markdown":
            lines = [line for line in out.splitlines() if line.startswith("|")]
            assert len(lines) == 2 + PUBLISHED[name]
            assert ("**" in out) == (name not in ("clcae", "e4e"))
            assert ("| - |" in out) == (name in ("clcae", "e4e"))


def test_the_best_of_a_paper_is_bold(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_rows([], tmp_path / "none.jsonl")
    assert main(["styleres_table2", "--results", str(tmp_path / "none.jsonl")]) == 0
    out = capsys.readouterr().out
    assert "| **7.60** | **0.83** | **0.14** | **10.64** | **18.86** |" in out
    assert "| 9.41 | **0.83** | 0.16 | 14.84 | 26.65 |" in out
    assert "| HFGI | published (retrained by the authors of StyleRes) |" in out


def test_measured_rows_stand_below_and_are_compared_or_marked(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sfe_table1", "--results", str(results)]) == 0
    out, err = capsys.readouterr()
    lines = [line for line in out.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 12 + 2
    cells = " | **0.012** ‡1 | 0.000 †2 | - | - | 20.000 †3 | - | - | **0.031** ‡4 |"
    assert lines[14].startswith("| \\<b\\>own\\</b\\> \\| \\\\x | F | ") and lines[14].endswith(
        cells
    )
    assert "| SFE | - | published | 0.019 | **0.002** |" in out
    assert "- †2 L2: another protocol, not compared: scale “[0, 1]” (the table's: “[-1, 1]”)" in out
    assert "1 of 3 rows have none of its metrics: left out" in err and len(err.splitlines()) == 1


def test_csv_of_measured_rows_is_for_programs(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sfe_table1", "--results", str(results), "--format", "csv"]) == 0
    rows = csv_rows(capsys.readouterr().out)
    own = rows[12]
    assert own["source"] == str(results) and rows[0]["source"] == "published"
    assert (own["LPIPS"], own["time s"], own["FID"]) == ("0.0123", "0.031", "")
    assert json.loads(own["differs"])["L2"] == {"scale": ["[0, 1]", "[-1, 1]"]}
    assert json.loads(own["protocol"])["LPIPS"]["network"] == "LPIPS v0.1 (alex)"
    assert rows[13]["method"] == "'=own"


def test_results_of_this_folder_are_found(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(results.parent)
    assert main(["sfe_table1", "--format", "csv"]) == 0
    assert len(csv_rows(capsys.readouterr().out)) == 14


def test_a_page_with_figure_and_pictures(
    runs: Path, results: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_png(torch.zeros(3, 8, 8), runs / "portraits-full-seed0" / "grid.png")
    out, figure = tmp_path / "page.html", tmp_path / "figure.svg"
    arguments = ["--results", str(results), "--runs", str(runs)]
    assert main(["sfe_table1", *arguments, "--out", str(out), "--figure", str(figure)]) == 0
    assert capsys.readouterr().out == ""
    text = out.read_text()
    assert text.startswith("<!DOCTYPE html>") and "&lt;b&gt;own&lt;/b&gt;" in text
    assert "<b>" not in text and "http://" not in text and "https://" not in text
    assert text.count('src="data:image/png;base64,') == 1
    assert text.count("data:image/svg+xml;base64,") == 1
    assert figure.read_bytes().startswith(b"<?xml")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_table_of_runs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["portraits", "--runs", str(runs)]) == 0
    out = capsys.readouterr().out
    assert "| CLCAE | F | " in out and "portraits-one_token-seed0 | " in out
    assert out.count("**23.00**") == 1 and "†" not in out
    edits = runs / "edits.json"
    row = {"method": "W", "direction": "smile", "strength": 1, "change": 0.5, "identity": 0.9}
    edits.write_text(json.dumps({"rows": [row]}))
    page = runs / "page.html"
    assert main(["portraits", "--runs", str(runs), "--edits", str(edits), "--out", str(page)]) == 0
    assert "smile: identity over strength" in page.read_text()


def test_mean_spread_and_paired_difference(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["portraits_ablation", "--runs", str(runs)]) == 0
    out, err = capsys.readouterr()
    mean, deviation = statistics.mean(VALUES["full"]), statistics.stdev(VALUES["full"])
    best = f"**{mean:.2f} ± {deviation:.2f}**"
    assert f"| CLCAE | F | seeds 0, 1, 2 | **0.1000 ± 0.0000** | {best} |" in out
    assert "-0.83 ± 0.29" in out  # of -1, -0.5 and -1
    assert "no finished run of 'without the alignment loss'" in err


@pytest.mark.parametrize("format_name", ["latex", "csv", "html"])
def test_other_formats(runs: Path, capsys: pytest.CaptureFixture[str], format_name: str) -> None:
    assert main(["portraits_ablation", "--runs", str(runs), "--format", format_name]) == 0
    out = capsys.readouterr().out
    assert ("\\toprule" in out) == (format_name == "latex")
    assert "21.33" in out
    if format_name == "csv":
        head = "method,space,source,MSE,PSNR,SSIM,perceptual,identity,protocol,differs"
        assert out.splitlines()[0] == head


def test_the_benchmark_puts_seeds_and_lists_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for seed, value in enumerate(VALUES["full"]):
        for images, more in (("portraits test", {"LEC smile+": 7.0}), ("portraits plain", {})):
            metrics = {"PSNR": value + 4 * ("plain" in images), **more}
            protocol = {name: {"resolution": "64 x 64"} for name in metrics}
            extra = {"images": images, "seed": seed}
            rows.append(Row("CLCAE", "F", metrics, protocol, num_images=8, extra=extra))
    path = tmp_path / "runs" / "compare" / "results.jsonl"
    write_rows(rows, path)
    write_png(torch.zeros(3, 8, 8), path.with_name("grid.png"))
    assert main(["portraits_comparison", "--runs", str(tmp_path / "runs"), "--format", "csv"]) == 0
    (line,) = csv_rows(capsys.readouterr().out)
    mean, deviation = statistics.mean(VALUES["full"]), statistics.stdev(VALUES["full"])
    assert line["source"] == "seeds 0, 1, 2"
    for column, expected in (("PSNR", mean), ("PSNR, plain", mean + 4)):
        found = [float(part) for part in line[column].split(" ± ")]
        assert found == pytest.approx([expected, deviation])
    page = tmp_path / "page.html"
    assert main(["portraits_comparison", "--results", str(path), "--out", str(page)]) == 0
    text = page.read_text()
    assert f"{mean:.2f} ± {deviation:.2f}" in text and text.count('src="data:image/png') == 1


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("portraits", "train.py"),
        ("portraits_ablation", "train.py --multirun +ablation=full,"),
        ("portraits_comparison", "scripts/compare.py"),
        ("portraits_tradeoff", "scripts/compare.py +comparison=tradeoff"),
    ],
)
def test_no_runs_is_a_line_with_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, command: str
) -> None:
    assert main([name, "--runs", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and f"make them with python {command}" in err


def test_a_wrong_name_is_a_line_with_all_names(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["nothing"])
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and "no table 'nothing'" in err
    assert all(
        name in err
        for name in [*PUBLISHED, "portraits", "portraits_ablation", "portraits_comparison"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sfe_table1", "--results", "none.jsonl"], "none.jsonl: no such file"),
        (["sfe_table1", "--results", "broken.jsonl"], "broken.jsonl: not a file of rows"),
        (["sfe_table1", "--results", "deep.jsonl"], "deep.jsonl: not a file of rows"),
        (["sfe_table1", "--figure", "x.gif"], "a figure is written as .png or .svg"),
        (["sfe_table2", "--figure", "x.png"], "no columns of distortion and editability"),
        (["sfe_table1", "--edits", "x.json"], "give --format html"),
        (["sfe_table1", "--edits", "x.json", "--format", "html"], "x.json: no such file"),
        (["portraits_ablation", "--results", "x.jsonl"], "made of runs alone"),
        (["sfe_table1", "--runs", "nowhere"], "nowhere: no such folder of runs"),
        (["sfe_table1", "--runs", ".", "--format", "html"], "grid.png: expected a picture"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.jsonl").write_text('{"method": 1}\n')
    (tmp_path / "deep.jsonl").write_text("[" * 100_000 + "\n")
    row = Row(method="x", space="W", metrics={"MSE": 1.0}, protocol={}, num_images=1)
    write_rows([row], tmp_path / "run" / "table.json")
    (tmp_path / "run" / "grid.png").write_bytes(b"<svg/>")
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert not out and len(err.splitlines()) == 1
    assert err.startswith("tables.py: ") and message in err
    assert not list(tmp_path.glob("x.*"))


def test_the_command_itself_without_matplotlib(results: Path, tmp_path: Path) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ImportError('none')\n")
    command = [sys.executable, str(ROOT / "scripts" / "tables.py"), "sfe_table1"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    page = tmp_path / "page.html"
    done = subprocess.run(
        [*command, "--out", str(page)], env=environment, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0 and "<svg" not in page.read_text()
    assert done.stderr == (
        "tables.py: the page has no figures: figures need matplotlib: pip install -e '.[eval]'\n"
    )
