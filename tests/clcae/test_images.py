"""Reading every kind of picture file, one-line errors of damaged ones, writing and grids."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clcae.images import (
    from_pil,
    from_uint8,
    labelled_grid,
    read_image,
    to_pil,
    to_uint8,
    write_png,
)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)


def as_pixels(image: torch.Tensor) -> np.ndarray:
    return to_uint8(image).permute(1, 2, 0).numpy()


def test_uint8_round_trip_keeps_every_level() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(from_uint8(levels)), levels)
    assert from_uint8(levels)[[0, 255]].tolist() == [-1, 1]


def test_to_uint8_clamps_and_rounds_half_precision_like_single() -> None:
    assert to_uint8(torch.tensor([-3.0, -1.0, 1.0, 7.0])).tolist() == [0, 0, 255, 255]
    values = torch.linspace(-1, 1, 101).half()
    assert torch.equal(to_uint8(values), to_uint8(values.float()))


def test_conversions_refuse_nan_wrong_type_and_wrong_shape() -> None:
    with pytest.raises(ValueError, match="NaN"):
        to_uint8(torch.tensor([float("nan")]))
    with pytest.raises(ValueError, match=r"torch\.float32"):
        from_uint8(torch.zeros(3, 2, 2))
    with pytest.raises(ValueError, match=r"\(1, 3, 2, 2\)"):
        to_pil(torch.zeros(1, 3, 2, 2))


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp"])
def test_lossless_files_come_back_exactly(tmp_path: Path, pixels: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path, lossless=True)  # WebP alone heeds the option
    image = read_image(path)
    assert image.dtype == torch.float32
    assert image.shape == (3, 12, 10)
    np.testing.assert_array_equal(as_pixels(image), pixels)


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    rgba = np.zeros((1, 3, 4), dtype=np.uint8)
    rgba[0, :, 3] = [0, 255, 51]
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert as_pixels(read_image(tmp_path / "a.png"))[0, :, 0].tolist() == [255, 0, 204]
    grey_alpha = Image.fromarray(rgba).convert("LA")
    assert as_pixels(from_pil(grey_alpha))[0, :, 1].tolist() == [255, 0, 204]


def test_palette_with_transparent_entry(tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putdata([0, 1])
    picture.save(tmp_path / "a.png", transparency=1)
    assert as_pixels(read_image(tmp_path / "a.png"))[0].tolist() == [[10, 20, 30], [255, 255, 255]]


def test_grey_and_bilevel_become_rgb() -> None:
    grey = Image.fromarray(np.array([[0, 7, 255]], dtype=np.uint8))
    assert as_pixels(from_pil(grey))[0].tolist() == [[v] * 3 for v in (0, 7, 255)]
    assert as_pixels(from_pil(grey.point(lambda v: v > 5, mode="1")))[0, :, 2].tolist() == [
        0,
        255,
        255,
    ]


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_grey_keeps_its_bits(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 1, 300, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(image[1].numpy(), values / 65535 * 2 - 1, atol=1e-6)


def test_floating_point_file_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((2, 2), dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif.*mode F.*8 or 16 bits"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", [np.int32, np.uint16])
def test_deep_files_of_8_bit_values_are_not_black(
    tmp_path: Path, kind: type, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.arange(256, dtype=kind).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(as_pixels(read_image(tmp_path / "a.tif"))[..., 2], values)
    assert "a.tif: 8-bit values" in caplog.text
    for wrong in (values.astype(np.int32) - 1, values.astype(np.int32) * 1000):
        Image.fromarray(wrong).save(tmp_path / "b.tif")
        with pytest.raises(ValueError, match=r"b\.tif.*values from .*expected 8 or 16 bits"):
            read_image(tmp_path / "b.tif")


def test_cmyk_jpeg(tmp_path: Path) -> None:
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # no cyan: red
    cmyk.save(tmp_path / "a.jpg", quality=100)
    red, green, blue = as_pixels(read_image(tmp_path / "a.jpg"))[4, 4].tolist()
    assert red > 240
    assert max(green, blue) < 15


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    upright = np.zeros((4, 2, 3), dtype=np.uint8)
    upright[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise when shown
    Image.fromarray(np.rot90(upright).copy()).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(as_pixels(read_image(tmp_path / "a.png")), upright)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_truncated_file_is_one_line(tmp_path: Path, suffix: str, share: float) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ValueError, match="expected a complete") as error:
        read_image(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_picture_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("<html>404</html>")
    with pytest.raises(ValueError, match=r"a\.png: cannot be read \(not a picture\)"):
        read_image(tmp_path / "a.png")
    with pytest.raises(ValueError, match="not a file"):
        read_image(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_image(tmp_path / "b.png")


def test_flipped_bytes_never_escape_as_another_error(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    data, rng, messages = path.read_bytes(), np.random.default_rng(2), []
    for _ in range(150):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            read_image(path)
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 50
    assert not any("\n" in message for message in messages)


def test_write_png_round_trip_and_folders(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "new" / "folder" / "a.png"
    write_png(from_pil(Image.fromarray(pixels)), path)
    np.testing.assert_array_equal(np.array(Image.open(path)), pixels)
    assert list(path.parent.iterdir()) == [path]


def test_interrupted_write_leaves_the_older_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    write_png(torch.ones(3, 4, 4), path)
    before = path.read_bytes()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_png(-torch.ones(3, 4, 4), path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_labelled_grid_has_headings_and_enlarged_cells() -> None:
    names = ("input", "W", "W+", "F")
    columns = {name: torch.full((2, 3, 16, 16), -1.0 + i * 0.4) for i, name in enumerate(names)}
    sheet = labelled_grid(columns, scale=3, padding=4, text_size=16)
    line = 24
    assert sheet.shape == (3, 4 + line + 2 * 52, 4 + 4 * 52)
    cell = sheet[:, 4 + line : 4 + line + 48, 4 + 52 : 4 + 52 + 48]
    torch.testing.assert_close(cell, torch.full_like(cell, -0.6), atol=1 / 127, rtol=0)
    for x in range(4):
        heading = sheet[:, : 4 + line, 4 + x * 52 : 52 + x * 52]
        assert heading.min() < -0.5, "a heading is drawn in black"


def test_labelled_grid_widens_for_long_texts_and_labels_rows() -> None:
    columns = {"a heading wider than its cell": torch.zeros(2, 3, 8, 8)}
    plain = labelled_grid(columns)
    assert plain.shape[2] > 100
    labelled = labelled_grid(columns, row_labels=["one", "two"])
    assert labelled.shape[2] > plain.shape[2]
    assert labelled[:, 28:, :20].min() < 0


def test_labelled_grid_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="one shape"):
        labelled_grid({"a": torch.zeros(1, 3, 8, 8), "b": torch.zeros(2, 3, 8, 8)})
    with pytest.raises(ValueError, match="one shape"):
        labelled_grid({})
    with pytest.raises(ValueError, match="1 row labels for 2 rows"):
        labelled_grid({"a": torch.zeros(2, 3, 8, 8)}, row_labels=["one"])
