"""Colour profiles: converted to sRGB on reading, kept on writing, left aside where damaged."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from clcae.colour import fits_rgb, from_srgb
from clcae.images import read_image, to_pil, to_uint8

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped() -> bytes:
    """A profile whose red is sRGB's green and the reverse: rXYZ and gXYZ change their places."""
    profile = bytearray(SRGB)
    (count,) = struct.unpack(">I", profile[128:132])
    entries = {bytes(profile[132 + 12 * i :][:4]): 132 + 12 * i for i in range(count)}
    red, green = entries[b"rXYZ"] + 4, entries[b"gXYZ"] + 4
    profile[red : red + 8], profile[green : green + 8] = (
        profile[green : green + 8],
        profile[red : red + 8],
    )
    return bytes(profile)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (600, 20, 3), dtype=np.uint8)


def levels(path: Path) -> np.ndarray:
    return to_uint8(read_image(path)).permute(1, 2, 0).numpy().astype(int)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_a_profile_is_applied(tmp_path: Path, pixels: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path, icc_profile=swapped(), lossless=True)
    assert np.abs(levels(path) - pixels[..., [1, 0, 2]]).max() <= 3


def test_srgb_changes_no_level(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=SRGB)
    np.testing.assert_array_equal(levels(tmp_path / "a.png"), pixels)


def test_transparency_keeps_its_place_under_a_profile(tmp_path: Path) -> None:
    rgba = np.zeros((1, 2, 4), dtype=np.uint8)
    rgba[0, :, 0], rgba[0, :, 3] = 255, [255, 0]
    Image.fromarray(rgba).save(tmp_path / "a.png", icc_profile=swapped())
    found = levels(tmp_path / "a.png")
    assert np.abs(found[0, 0] - [0, 255, 0]).max() <= 3 and found[0, 1].tolist() == [255] * 3


def test_grey_under_a_profile_of_rgb_is_left_aside_with_a_line(
    tmp_path: Path, pixels: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    Image.fromarray(pixels[..., 0]).save(tmp_path / "a.png", icc_profile=SRGB)
    np.testing.assert_array_equal(levels(tmp_path / "a.png")[..., 1], pixels[..., 0])
    Image.fromarray(pixels).save(tmp_path / "b.png", icc_profile=SRGB[:200])
    np.testing.assert_array_equal(levels(tmp_path / "b.png"), pixels)
    assert "a profile of RGB in a picture of GRAY" in caplog.text
    assert caplog.text.count("left aside") == 2


def test_a_picture_goes_back_into_its_profile(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=swapped())
    image = to_pil(read_image(tmp_path / "a.png"))
    back = from_srgb(image, swapped())
    assert np.abs(np.asarray(back).astype(int) - pixels).max() <= 3
    assert from_srgb(image, SRGB) is image
    assert fits_rgb(swapped()) and not fits_rgb(None) and not fits_rgb(SRGB[:50])
