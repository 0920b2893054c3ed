"""The sheet of true edits is drawn, and mistakes end in one line."""

from pathlib import Path

import pytest
import torch
from evaluations import command

from clcae.encoders.base_code import BaseCodeEncoder
from clcae.evaluation.rows import Row
from clcae.images import read_image, write_png
from clcae.serialization import save
from clcae.tables.figures import true_edit_curves
from scripts.draw_true_edits import main


def test_the_sheet_shows_every_edit(tmp_path: Path) -> None:
    assert main(["--person", "1", "--out", str(tmp_path / "sheet.png")]) == 0
    shape = read_image(tmp_path / "sheet.png").shape
    assert shape[1] > 9 * 128
    assert (tmp_path / "sheet.png").stat().st_size < 500_000


def test_far_edits_of_four_spaces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--person", "0", "--steps", "1", "--out", str(tmp_path / "far.png")]
    assert main(["--far", "smile-", *given]) == 0
    drawn = read_image(tmp_path / "far.png")
    assert drawn.shape[1] > 4 * 128 and drawn.shape[2] > 9 * 128
    encoder = BaseCodeEncoder(image_size=64, widths=(4, 4), out_channels=128)
    save(encoder, tmp_path / "base_code.safetensors", provenance={})
    anchored = [*given, "--base-code", str(tmp_path / "base_code.safetensors")]
    assert main(["--far", "smile-", *anchored]) == 0
    cells = [picture[:, -256:] for picture in (drawn, read_image(tmp_path / "far.png"))]  # with F
    assert not torch.equal(*cells)
    assert main(["--far", "smile", *given]) == 1
    assert "--far is 'smile': expected some of smile+, smile-" in capsys.readouterr().err


def test_a_person_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--person", "-1", "--out", str(tmp_path / "sheet.png")]) == 1
    assert "--person is -1: expected 0 or more" in capsys.readouterr().err


def test_methods_beside_the_true_edits_and_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a real evaluation of one person."""
    monkeypatch.chdir(tmp_path)
    given = ["data=portraits_true_edits", "data.num_people=1", "outputs=W"]
    assert command(*given, "protocol=true_edits_curve", "save=sheets") == 0
    assert main(["--curves", "results.jsonl", "--out", "curves.png"]) == 0
    assert read_image(tmp_path / "curves.png").std() > 0.05
    assert main(["--curves", "results.jsonl", "--only", "F", "--out", "curves.png"]) == 1
    assert "no such row: of portraits true edits there are" in capsys.readouterr().err
    beside = ["--beside", "CLCAE W=sheets/W", "--person", "0"]
    assert main([*beside, "--out", "beside.png"]) == 0
    drawn = read_image(tmp_path / "beside.png")
    sheet = read_image(tmp_path / "sheets" / "W" / "edits" / "00000.png")
    doubled = sheet[:, :64, 128:192].repeat_interleave(2, 1).repeat_interleave(2, 2)
    windows = drawn.unfold(1, 128, 1).unfold(2, 128, 1)[:, :80, -160:]  # the last column's top
    assert (windows == doubled[:, None, None]).all(dim=(0, 3, 4)).any()
    capsys.readouterr()
    for asked, said in (
        (["x=sheets/W"], "sheets/W has no person 14: it has 0 to 0 (--person)"),
        (["x=sheets"], "expected sheets/W"),
        (["x=nowhere"], "nowhere holds no edits: expected a folder of evaluate.py save=FOLDER"),
    ):
        assert main(["--beside", *asked, "--out", "a.png"]) == 1
        assert said in capsys.readouterr().err
    assert main(["--curves", "results.jsonl", "--out", "curves.gif"]) == 1
    assert main(["--beside", "x=nowhere", "--out", "a.png"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2
    with pytest.raises(SystemExit):
        main(["--beside", "folder"])


@pytest.mark.parametrize("given", [["--curves", "a.jsonl"], ["--beside", "x=a"], ["--far", "yaw+"]])
def test_the_sheet_of_the_documentation_is_not_overwritten(
    given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(given)
    assert f"{given[0]} needs --out FILE" in capsys.readouterr().err


def test_curves_of_fewer_edits_and_of_nobody_who_changes() -> None:
    names = [f"{kind} at {n}/8" for kind in ("change", "perceptual changed") for n in range(1, 9)]
    names += ["unedited perceptual changed", "ceiling change", "ceiling perceptual changed"]
    metrics = {
        f"{name}{edit}": 0.1 for name in (*names, "true change") for edit in ("", " age+", " yaw+")
    }
    row = Row("m", "W", {**metrics, "true change yaw+": 0.0}, {}, num_images=1)
    figure = true_edit_curves([row], edits=["", "smile+", "age+", "yaw+"])
    assert [panel.get_title() for panel in figure.axes] == ["mean of all edits", "age+", "yaw+"]
    with pytest.raises(ValueError, match="no rows: nothing to draw"):
        true_edit_curves([], edits=[""])
    with pytest.raises(
        ValueError, match="m W has no 'true change': expected protocol=true_edits_c"
    ):
        true_edit_curves([Row("m", "W", {"MSE": 0.1}, {}, num_images=1)], edits=["", "smile+"])


def test_columns_beside_each_other_are_of_the_same_edits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, rows in (("a", 1), ("b", 2)):
        picture = torch.zeros(3, 64 * rows, 320)
        (tmp_path / name / "edits").mkdir(parents=True)
        write_png(picture, tmp_path / name / "edits" / "00000.png")
    one, other = (f"m{name}={tmp_path / name}" for name in "ab")
    out = ["--person", "0", "--out", str(tmp_path / "out.png")]
    assert main(["--beside", one, "--beside", other, *out]) == 1
    assert "are other than those of the first" in capsys.readouterr().err
    for names in (["true edit", "x"], ["x", "x"]):
        given = [part for name in names for part in ("--beside", f"{name}={tmp_path / 'a'}")]
        assert main([*given, *out]) == 1
        assert f"--beside names '{names[0]}'" in capsys.readouterr().err
    further = [["--images", "far edits"], ["--only", "W"], ["--base-code", "a"]]
    for arguments in (["--beside", one], ["--curves", "a", "--beside", one], *further):
        with pytest.raises(SystemExit):
            main(arguments)
