"""Rows to files and back."""

import json
import math
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clcae.evaluation.rows import (
    Row,
    append_rows,
    read_rows,
    software_versions,
    source_commit,
    write_rows,
)

ROOT = Path(__file__).resolve().parents[3]

ROW = Row(
    method="clcae",
    space="W+",
    metrics={"mse": 0.05, "id": 0.5},
    protocol={"mse": {"scale": "[-1, 1]", "direction": "lower"}},
    num_images=7,
    skipped={"id": ["a.png", "ä.png"]},
    versions={"torch": "2"},
    extra={"milliseconds": 3.5},
)


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "new/folder/rows.json"])
def test_round_trip(tmp_path: Path, name: str) -> None:
    write_rows([ROW, replace(ROW, space="F")], tmp_path / name)
    assert read_rows(tmp_path / name) == [ROW, replace(ROW, space="F")]
    assert [p.name for p in (tmp_path / name).parent.iterdir()] == [Path(name).name]


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_append(tmp_path: Path, name: str) -> None:
    append_rows([ROW], tmp_path / name)
    append_rows([replace(ROW, space="F")], tmp_path / name)
    assert [row.space for row in read_rows(tmp_path / name)] == ["W+", "F"]


def test_lines_hold_one_row_each(tmp_path: Path) -> None:
    write_rows([ROW, ROW], tmp_path / "rows.jsonl")
    lines = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["method"] for line in lines] == ["clcae", "clcae"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_null(tmp_path: Path, value: float) -> None:
    write_rows([replace(ROW, metrics={"id": value})], tmp_path / "rows.json")
    assert json.loads((tmp_path / "rows.json").read_text())[0]["metrics"] == {"id": None}
    assert math.isnan(read_rows(tmp_path / "rows.json")[0].metrics["id"])


def test_interrupted_append_leaves_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows([ROW], path)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        append_rows([ROW], path)
    assert list(tmp_path.iterdir()) == [path]
    assert read_rows(path) == [ROW]


@pytest.mark.parametrize(
    "text", ["", "[1]", '[{"method": "a"}]', '{"metrics": {}}', "[[]]", '[{"metrics": 3}]', "\xff"]
)
def test_damaged_file_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"rows\.json: not a file of rows") as error:
        read_rows(tmp_path / "rows.json")
    assert "\n" not in str(error.value)


def append(path: Path, method: str) -> None:
    for _ in range(8):
        append_rows([replace(ROW, method=method)], path)


def test_several_processes_lose_no_row_and_break_none(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    path = tmp_path / "rows.jsonl"
    processes = [context.Process(target=append, args=(path, name)) for name in "abcd"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert Counter(row.method for row in read_rows(path)) == dict.fromkeys("abcd", 8)
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_space_that_is_there_is_not_appended_twice(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows([ROW, replace(ROW, method="other", space="X")], path)
    both = [ROW, replace(ROW, space="X")]
    append_rows(both, path, unless=lambda row: row.method == ROW.method)
    assert [(row.method, row.space) for row in read_rows(path)][2:] == [(ROW.method, "X")]
    append_rows(both, path, unless=lambda row: row.method == ROW.method)
    assert len(read_rows(path)) == 3


def test_what_a_killed_process_left_beside_the_rows_goes(tmp_path: Path) -> None:
    ours = tmp_path / ".rows.jsonl.0123abcd.partial"
    theirs = [".rows.jsonl.partial", ".other.jsonl.0123abcd.partial", "rows.jsonl.0123abcd.partial"]
    theirs += ["below/.rows.jsonl.0123abcd.partial"]
    (tmp_path / "below").mkdir()
    for name in [ours.name, *theirs]:
        (tmp_path / name).touch()
    append_rows([ROW], tmp_path / "rows.jsonl")
    assert not ours.exists() and all((tmp_path / name).exists() for name in theirs)


def test_lines_that_are_there_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows([ROW], path)
    before = path.read_text(encoding="utf-8").replace('"F"', ' "F"').rstrip("\n")  # by hand
    path.write_text(before, encoding="utf-8")
    append_rows([replace(ROW, space="F")], path)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == before and len(lines) == 2
    (tmp_path / "empty.jsonl").touch()
    append_rows([ROW], tmp_path / "empty.jsonl")
    assert read_rows(tmp_path / "empty.jsonl") == [ROW]


def test_versions_and_commit(tmp_path: Path) -> None:
    versions = software_versions()
    assert {"python", "torch", "torchvision", "numpy", "pillow"} <= versions.keys()
    assert versions["torch"] == torch.__version__ and versions["numpy"] == np.__version__
    if (ROOT / ".git").exists():
        assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", source_commit() or "")
    # Outside a checkout, though within that of something else.
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    shutil.copytree(
        ROOT / "clcae", tmp_path / "deep" / "clcae", ignore=shutil.ignore_patterns("*.so")
    )
    code = "from clcae.evaluation.rows import source_commit; print(source_commit())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "deep", capture_output=True, text=True
    )
    assert done.stdout.strip() == "None", done.stderr


def test_missing_file_and_unfit_row(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected rows"):
        read_rows(tmp_path / "rows.json")
    with pytest.raises(ValueError, match="does not fit JSON"):
        write_rows([replace(ROW, extra={"path": tmp_path})], tmp_path / "rows.json")
    assert not list(tmp_path.iterdir())
