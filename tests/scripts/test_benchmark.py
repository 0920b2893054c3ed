"""The command on the smallest networks: that everything is there, not how fast it was."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.report import SCHEMA
from benchmarks.sections import SECTIONS
from clcae.precision import bfloat16_lacking
from scripts.benchmark import main

ROOT = Path(__file__).resolve().parents[2]


# In this process, whose memory stays as it is.
SHORT = ("--quick", "--limit", "0.01", "--device", "cpu", "--memory", "returned")


def numbers(node: Any) -> Iterator[float]:
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from numbers(child)
    elif isinstance(node, int | float) and not isinstance(node, bool):
        yield node


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, dict[str, Any]]:
    """Output, progress and figures of a quick run, which times nearly everything once."""
    path = tmp_path_factory.mktemp("benchmark") / "speed.json"
    command = [sys.executable, str(ROOT / "scripts" / "benchmark.py"), "--device", "cpu"]
    command += ["--quick", "--limit", "0.01", "--threads", "1", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=path.parent)
    assert done.returncode == 0, done.stderr
    assert list(path.parent.iterdir()) == [path]
    return done.stdout, done.stderr, json.loads(path.read_text())


def test_every_section_is_there(ran: tuple[str, str, dict[str, Any]]) -> None:
    out, progress, report = ran
    lacking = bfloat16_lacking(torch.device("cpu")) is not None
    missing = ["precision: there is nothing to measure on this machine"] if lacking else []
    assert report["schema"] == SCHEMA and report["left_out"] == missing
    assert list(report["sections"]) == [name for name in SECTIONS if name != "training-1024"]
    for section, records in report["sections"].items():
        assert records or (lacking and section == "precision"), section
        for record in records:
            assert record["variants"], record["name"]
            assert f"| {section} | {record['name']} |" in out
            assert f"{section}, {record['name']}" in progress
            for ratio in record["ratios"]:
                assert {*ratio["over"], *ratio["under"]} <= set(record["variants"])
                assert 0.0 < ratio["low"] <= ratio["value"] * 1.0001
                assert ratio["value"] <= ratio["high"] * 1.0001
                assert f"{ratio['title']}: " in progress
    assert all(math.isfinite(number) and number > 0 for number in numbers(report["ceilings"]))
    assert all(math.isfinite(number) and number >= 0 for number in numbers(report["sections"]))


def test_what_the_ratios_are_of(ran: tuple[str, str, dict[str, Any]]) -> None:
    sections = ran[2]["sections"]
    titles = {
        section: {ratio["title"] for record in records for ratio in record["ratios"]}
        for section, records in sections.items()
    }
    assert titles["import"] == {"clcae / torch, seconds"}
    depthwise = "textbook (depthwise FIR) / clcae, seconds"
    program = "textbook (plain program) / clcae, seconds"  # where this one keeps freed memory
    share = "3x3 convolution / clcae, seconds an operation"
    always = {share, "textbook / clcae, seconds", depthwise}
    assert always <= titles["generator"] <= always | {program}
    assert titles["inversion"] == {"whole / (encoder + synthesis), seconds"}
    assert titles["edit"] == {"edit / synthesis, seconds"}
    quantities = ("seconds", "peak memory", "peak memory in all")
    assert titles["training"] == {f"clcae / textbook, {quantity}" for quantity in quantities}
    ours = ("clcae", "clcae (in place)")
    theirs = ("reference", "textbook")
    assert titles["ops"] == {f"{a} / {b}, seconds" for a in theirs for b in ours}
    assert len(sections["training"]) == 2  # a step of each stage


def test_variants_have_their_figures(ran: tuple[str, str, dict[str, Any]]) -> None:
    sections = ran[2]["sections"]
    keys = {"seconds", "rounds", "images", "images_per_second", "gflop", "share_of_convolution"}
    assert keys < set(sections["generator"][0]["variants"]["clcae"])
    assert keys < set(sections["encoder"][0]["variants"]["clcae"])
    steps = sections["training"][1]["variants"]
    assert all(step["peak_mib"]["above"] > 1 for step in steps.values())
    assert "share_of_copy" in sections["ops"][0]["variants"]["clcae"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "generators"], "there is no section 'generators'; there are import, generator"),
        (["--limit", "0"], "'0', expected a number above 0"),
        (["--limit", "soon"], "'soon', expected a number above 0"),
        (["--threads", "0"], "'0', expected a number above 0"),
        (["--json", "."], "'.' is a folder, expected a file to write"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_device_that_is_not_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cuda:99"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("benchmark.py: device is ") and "cuda:99" in line


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert "python scripts/benchmark.py --quick" in said
    assert "--peak" not in said and "--serve" not in said
    assert all(f"  {name} " in said for name in SECTIONS)


@pytest.mark.gpu
def test_a_gpu_has_its_own_variants(tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    arguments = ["--quick", "--limit", "0.5", "--device", "cuda", "--json", str(path)]
    assert main([*arguments, "--only", "generator,training,ops"]) == 0
    report = json.loads(path.read_text())
    assert report["machine"]["gpu"] and report["left_out"] == []
    sections = report["sections"]
    assert "references (float16, compiled)" in sections["generator"][0]["variants"]
    assert "reference (compiled)" in sections["ops"][0]["variants"]
    assert any("float16" in record["name"] for record in sections["ops"])
    assert sections["training"][1]["variants"]["clcae"]["peak_mib"]["above"] > 0


@pytest.mark.slow
def test_compiled_networks_are_a_variant(tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    arguments = [*SHORT, "--json", str(path)]
    assert main([*arguments, "--compile", "--only", "generator"]) == 0
    report = json.loads(path.read_text())
    assert report["left_out"] == []
    titles = {ratio["title"] for ratio in report["sections"]["generator"][0]["ratios"]}
    assert {f"{a} / clcae (compiled), seconds" for a in ("clcae", "textbook")} < titles
