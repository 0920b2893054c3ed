"""The sheet of true edits is drawn, and mistakes end in one line."""

from pathlib import Path

import pytest

from clcae.images import read_image
from scripts.draw_true_edits import main


def test_the_sheet_shows_every_edit(tmp_path: Path) -> None:
    assert main(["--person", "1", "--out", str(tmp_path / "sheet.png")]) == 0
    shape = read_image(tmp_path / "sheet.png").shape
    assert shape[1] > 9 * 128
    assert (tmp_path / "sheet.png").stat().st_size < 500_000


def test_a_person_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--person", "-1", "--out", str(tmp_path / "sheet.png")]) == 1
    assert "--person is -1: expected 0 or more" in capsys.readouterr().err
