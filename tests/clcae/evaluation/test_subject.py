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
