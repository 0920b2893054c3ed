"""Rows to files and back."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest

from clcae.evaluation.results import Row, append_rows, read_rows, write_rows

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


def test_missing_file_and_unfit_row(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected rows"):
        read_rows(tmp_path / "rows.json")
    with pytest.raises(ValueError, match="does not fit JSON"):
        write_rows([replace(ROW, extra={"path": tmp_path})], tmp_path / "rows.json")
    assert not list(tmp_path.iterdir())
