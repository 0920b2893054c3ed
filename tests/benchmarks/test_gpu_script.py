"""benchmarks/gpu.sh: what it says without a GPU, and that it goes on whatever fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.sh"


def run(out: Path, **environment: str) -> tuple[int, list[str]]:
    ran = subprocess.run(
        ["sh", str(SCRIPT), str(out)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = (out / "summary.txt").read_text().splitlines()
    assert ran.stdout.splitlines() == lines
    return ran.returncode, lines


def stand_in(path: Path, *cases: str) -> str:
    """Writes an interpreter that does by its arguments as the cases say."""
    path.write_text('#!/bin/sh\ncase "$*" in\n' + "\n".join([*cases, "*) ;;"]) + "\nesac\n")
    path.chmod(0o755)
    return str(path)


def test_without_a_gpu_it_says_what_is_missing(tmp_path: Path) -> None:
    status, lines = run(tmp_path / "out", PYTHON=sys.executable, CUDA_VISIBLE_DEVICES="")
    assert status == 2 and len(lines) == 1
    assert lines[0].startswith("missing: ") and "CUDA" in lines[0]


def test_without_the_library_it_says_what_is_missing(tmp_path: Path) -> None:
    python = stand_in(tmp_path / "python", "*) echo 'No module named torch' >&2; exit 1 ;;")
    status, lines = run(tmp_path / "out", PYTHON=python)
    assert status == 2
    assert lines == [
        f"missing: {python} cannot import the library: No module named torch (make install)"
    ]


def test_it_goes_on_whatever_fails(tmp_path: Path) -> None:
    python = stand_in(
        tmp_path / "python",
        "*kernels.status*) echo 'there is no nvcc'; exit 1 ;;",
        "*test_gpu.py*) echo '3 failed'; echo; exit 1 ;;",
        "*benchmark.py*) echo timed ;;",
    )
    status, lines = run(tmp_path / "out", PYTHON=python)
    assert status == 1
    words = [line.split(": ")[0].split() for line in lines[:-1]]
    names = ["build", "operators", "precision", "generator", "doctor", "tests", "benchmark"]
    assert [word[-1] for word in words] == names
    assert [word[0] for word in words] == ["failed", "failed", *["ok"] * 5]
    assert lines[0].endswith("there is no nvcc") and lines[1].endswith("3 failed")
    assert (tmp_path / "out" / "benchmark.log").read_text() == "timed\n"
    status, lines = run(tmp_path / "late", PYTHON=python, MINUTES="0")
    assert status == 1 and all("no time left" in line for line in lines[:-1])


@pytest.mark.parametrize("given", [[], ["a", "b"]])
def test_usage(given: list[str], tmp_path: Path) -> None:
    ran = subprocess.run(
        ["sh", str(SCRIPT), *given], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2 and ran.stderr.startswith("usage: ")
