"""Painted masks of every kind: read by the stated rule, or refused in words."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clcae.photographs.masks import read_mask

SQUARE = np.zeros((8, 8), np.uint8)
SQUARE[2:6, 2:6] = 1
EXPECTED = torch.from_numpy(SQUARE.astype(np.float32))


def coloured(*channels: int) -> Image.Image:
    return Image.fromarray(np.stack([SQUARE * level for level in channels], axis=-1))


def palette() -> Image.Image:
    picture = Image.fromarray(SQUARE).convert("P")
    picture.putpalette([0, 0, 0, 255, 255, 255])
    return picture


def transparent(grey: int) -> Image.Image:
    picture = Image.new("RGBA", (8, 8), (grey, grey, grey, 0))
    picture.putalpha(Image.fromarray(SQUARE * 255))
    return picture


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (Image.fromarray(SQUARE * 255), ""),
        (Image.fromarray(SQUARE), "values of 0 and 1 are read as black and white"),
        (coloured(1, 1, 1), "values of 0 and 1 are read as black and white"),
        (Image.fromarray(SQUARE.astype(np.uint16)), "values of 0 and 1"),
        (Image.fromarray(SQUARE.astype(np.uint16) * 65535), ""),
        (Image.fromarray(SQUARE.astype(np.int32) * 255), ""),
        (Image.fromarray(SQUARE.astype(bool)), ""),
        (palette(), ""),
        (coloured(255, 0, 0), ""),
        (coloured(255, 255, 255, 255), "its transparency is the mask"),
        (transparent(255), "its transparency is the mask"),
        (transparent(0), "its transparency is the mask"),
    ],
)
def test_every_way_to_paint(
    tmp_path: Path, picture: Image.Image, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / ("a.tif" if picture.mode.startswith("I") else "a.png")
    picture.save(path)
    painted = read_mask(str(path), feather=0).painted
    assert painted is not None and torch.equal(painted, EXPECTED)
    out = capsys.readouterr().out
    assert said in out and out.count("\n") == bool(said)


def test_grey_is_a_part(tmp_path: Path) -> None:
    Image.fromarray(SQUARE * 51).save(tmp_path / "a.png")
    painted = read_mask(str(tmp_path / "a.png"), feather=0).painted
    torch.testing.assert_close(painted, EXPECTED / 5)


def both() -> Image.Image:
    picture = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).convert("RGBA")
    picture.putalpha(Image.fromarray(SQUARE * 254 + 1))
    return picture


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (Image.new("L", (8, 8)), "all black"),
        (Image.new("RGBA", (8, 8), (0, 0, 0, 255)), "all black"),
        (Image.new("RGB", (8, 8)), "all black"),
        (Image.fromarray(SQUARE * 3), "its brightest level is 3 of 255"),
        (both(), "both its colours and its transparency vary"),
        (Image.fromarray(SQUARE.astype(np.float32)), "values from 0 to 1, expected levels"),
        (Image.fromarray(-SQUARE.astype(np.int32)), "values from -1 to 0"),
    ],
)
def test_refused(tmp_path: Path, picture: Image.Image, words: str) -> None:
    path = tmp_path / ("a.tif" if picture.mode in "IF" else "a.png")
    picture.save(path)
    with pytest.raises(ValueError, match=words):
        read_mask(str(path), feather=0)
    path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="not a picture"):
        read_mask(str(path), feather=0)
