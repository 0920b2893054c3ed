"""What an edit leaves of a photograph: its pixels in any turn, its colour profile, its EXIF."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps
from skimage.data import astronaut

from clcae.images import read_image
from clcae.photographs.cutouts import cut_middle, moved, place_of, put_back
from clcae.photographs.whole import read_whole
from scripts.edit import main


def edit(method: Path, *arguments: object) -> int:
    directions = method.parent / "directions.safetensors"
    given = [*arguments, "--method", method, "--directions", directions, "--edit", "a=1"]
    return main(list(map(str, given)))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def wide_gamut() -> bytes:
    """A profile of RGB pixels whose primaries are not those of sRGB: its own, channels swapped."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = data.index(b"rXYZ"), data.index(b"gXYZ")  # in the table of tags
    data[red : red + 4], data[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(data)


def test_a_turned_photograph_is_pasted_into_as_it_was(method: Path, tmp_path: Path) -> None:
    picture = Image.fromarray(astronaut())
    for turn in (0, 90, 180, 270):
        picture.rotate(turn, expand=True).save(tmp_path / f"{turn}.png")
    assert edit(method, *sorted(tmp_path.glob("*.png")), "--align", "--out", tmp_path / "o") == 0
    upright = pixels(tmp_path / "o" / "0.png")
    assert np.abs(upright - astronaut()).max() > 20
    crop = pixels(tmp_path / "o" / "0-crop.png")
    for turn in (90, 180, 270):
        back = Image.open(tmp_path / "o" / f"{turn}.png").rotate(-turn, expand=True)
        assert np.abs(np.asarray(back).astype(int) - upright).mean() < 0.01
        assert np.abs(pixels(tmp_path / "o" / f"{turn}-crop.png") - crop).mean() < 1


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp"])
def test_profile_and_exif_are_kept(method: Path, tmp_path: Path, ending: str) -> None:
    photo, profile = tmp_path / f"photo.{ending}", wide_gamut()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    if ending != "tif":  # Pillow cannot write it
        exif[0x8769] = {0x9003: "2026:11:28 19:45:00"}
    picture = Image.fromarray(astronaut()[:400])
    options = {} if ending in ("png", "tif") else {"quality": 95}
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    turned.save(photo, icc_profile=profile, exif=exif, **options)
    box = ("--mask", "200,80,260,160", "--feather", 0)
    assert edit(method, photo, *box, "--out", tmp_path / "out") == 0
    result = Image.open(tmp_path / "out" / "photo.png")
    assert result.info["icc_profile"] == profile and result.size == (512, 400)
    assert result.getexif().get(0x0112) is None and result.getexif()[0x010F] == "a camera"
    assert ending == "tif" or result.getexif().get_ifd(0x8769)[0x9003].startswith("2026")
    own = ImageOps.exif_transpose(Image.open(photo))
    before, after = np.asarray(own.convert("RGB")).astype(int), np.asarray(result).astype(int)
    changed = (before != after).any(axis=2)
    assert changed[80:160, 200:260].mean() > 0.8
    changed[80:160, 200:260] = False
    assert not changed.any()  # the very values of the file
    # As a viewer shows it, the edit is that of the same photograph in sRGB.
    plain = tmp_path / "plain.png"
    shown = read_image(photo)
    Image.fromarray(((shown + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()).save(plain)
    assert edit(method, plain, *box, "--out", tmp_path / "plain") == 0
    expected, found = (
        read_image(tmp_path / "plain" / "plain.png"),
        read_image(tmp_path / "out" / "photo.png"),
    )
    assert (expected - found)[:, 80:160, 200:260].abs().mean() * 127.5 < 3


def test_a_photograph_without_profile_has_none(method: Path, tmp_path: Path) -> None:
    Image.fromarray(astronaut()).save(tmp_path / "photo.png")
    image, whole = read_whole(tmp_path / "photo.png")
    assert (whole.own, whole.profile, whole.exif, whole.pixels) == (None, None, None, 512 * 512)
    assert torch.equal(image, read_image(tmp_path / "photo.png"))
    assert edit(method, tmp_path / "photo.png", "--align", "--out", tmp_path / "out") == 0
    assert not {"icc_profile", "exif"} & Image.open(tmp_path / "out" / "photo.png").info.keys()


def test_the_part_that_is_put_in_is_that_of_the_whole() -> None:
    photo = torch.rand(3, 40, 61) * 2 - 1
    cutout = cut_middle(photo, (16, 16))
    picture = torch.rand(3, 16, 16) * 2 - 1
    rows, columns = place_of([cutout], (40, 61))
    assert (columns.start, columns.stop) in ((10, 51), (9, 51), (10, 52)) and rows == slice(0, 40)
    part = put_back(photo[:, rows, columns], picture, moved(cutout, rows, columns))
    assert torch.equal(part, put_back(photo, picture, cutout)[:, rows, columns])
