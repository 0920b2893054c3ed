"""The subject of an evaluation: pairs of folders, and sizes of files."""

from pathlib import Path

import pytest
from evaluations import write_portraits
from PIL import Image

from clcae.evaluation.protocol import read_protocol
from clcae.evaluation.subject import Subject, folder_subject

PROTOCOL = read_protocol({"measures": {"MSE": {"measure": "mse"}}})


def pair(made: Path, given: Path, enlarge: bool = False) -> Subject:
    return folder_subject(
        str(made), str(given), name=None, batch_size=None, protocol=PROTOCOL, enlarge=enlarge
    )


def test_folders_belong_together_by_name(tmp_path: Path) -> None:
    made = write_portraits(tmp_path / "made", 4)
    given = write_portraits(tmp_path / "given", 4)
    subject = pair(made, given)
    assert (subject.name, subject.spaces, subject.files) == ("made", ("files",), (32, 32))
    assert subject.source.images([1]).shape == (1, 6, 32, 32)
    before = subject.digest()
    (made / "001.png").rename(made / "other.png")
    with pytest.raises(ValueError, match=r"1 of 4 in .*made .*other.*; 1 of 4 in .*given .*001"):
        pair(made, given)
    (made / "other.png").rename(made / "001.png")
    Image.new("RGB", (8, 8)).save(made / "002.png")
    with pytest.raises(ValueError, match=r"002\.png is 8 x 8 and .*002\.png is 32 x 32: expected"):
        pair(made, given)
    Image.new("RGB", (8, 8)).save(given / "002.png")
    with pytest.raises(ValueError, match="pictures are 32 x 32, 8 x 8: expected one size"):
        pair(made, given)
    (made / "002.png").unlink()
    (given / "002.png").unlink()
    assert pair(made, given).digest() != before
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty"):
        pair(tmp_path / "empty", given)


def test_the_folder_of_invert_and_what_systems_leave_are_accepted(tmp_path: Path) -> None:
    made = write_portraits(tmp_path / "made", 2)
    given = write_portraits(tmp_path / "given", 2)
    for name in (".invert.json", "000.safetensors", "Thumbs.db", "desktop.ini", "notes.txt"):
        (made / name).write_text("x")
    (given / "001.json").write_text("{}")
    (given / ".DS_Store").touch()
    assert [name for name, *_ in pair(made, given).source.pairs] == ["000", "001"]  # type: ignore[attr-defined]


def test_large_pairs_are_refused_or_measured_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("made", "given"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (1000, 500)).save(tmp_path / name / "a.png")
    folders = (tmp_path / "made", tmp_path / "given")
    assert pair(*folders).batch_size == 16
    monkeypatch.setenv("CLCAE_MAX_MEGAPIXELS", "10")
    assert pair(*folders).batch_size == 4
    monkeypatch.setenv("CLCAE_MAX_MEGAPIXELS", "2")
    with pytest.raises(ValueError, match=r"500 x 1000 pixels .*CLCAE_MAX_MEGAPIXELS=3"):
        pair(*folders)


def test_sizes_of_pairs_are_those_of_upright_pictures(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, size, options in (("made", (20, 12), {}), ("given", (12, 20), {"exif": exif})):
        (tmp_path / name).mkdir()
        Image.new("RGB", size).save(tmp_path / name / "a.png", **options)
    subject = pair(tmp_path / "made", tmp_path / "given")
    assert subject.files == (12, 20) and subject.source.images([0]).shape == (1, 6, 12, 20)
