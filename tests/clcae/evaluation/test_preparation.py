"""What pictures become before they are compared, against Pillow."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from clcae.evaluation.preparation import AVERAGE, PILLOW, Preparation
from clcae.images import to_uint8
from clcae.portraits import PortraitImages


@pytest.fixture(scope="module")
def images() -> Tensor:
    return PortraitImages(split="test", size=48).batch([0, 1]).images


def pillow_of(image: Tensor) -> Image.Image:
    return Image.fromarray(to_uint8(image).permute(1, 2, 0).numpy())


def levels(image: Tensor) -> np.ndarray:
    return ((image.double() + 1) * 127.5).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("resize", PILLOW)
def test_pillows_filters_are_pillows(images: Tensor, resize: str) -> None:
    made = Preparation(size=(20, 32), resize=resize).outputs(images)
    assert made.shape == (2, 3, 20, 32)
    for image, result in zip(images, made, strict=True):
        expected = np.array(pillow_of(image).resize((32, 20), PILLOW[resize]))
        np.testing.assert_allclose(levels(result), expected, atol=1e-3)


def test_jpeg_is_what_pillow_writes_and_reads(images: Tensor) -> None:
    both = Preparation(files="JPEG", quality=60)
    for image, result in zip(images, both.outputs(images), strict=True):
        buffer = BytesIO()
        pillow_of(image).save(buffer, format="JPEG", quality=60)
        np.testing.assert_allclose(levels(result), np.array(Image.open(buffer)), atol=1e-3)
    assert torch.equal(both.targets(images), both.outputs(images))
    alone = Preparation(files="JPEG", quality=60, compressed="outputs")
    assert torch.equal(alone.outputs(images), both.outputs(images))
    assert torch.equal(alone.targets(images), images)


def test_levels_and_sizes(images: Tensor) -> None:
    rounded = levels(Preparation(levels="uint8").targets(images * 0.991)[0])
    np.testing.assert_allclose(rounded, rounded.round(), atol=1e-4)
    assert Preparation().outputs(images) is images
    pooled = Preparation(size=24, resize=AVERAGE).outputs(images)
    expected = images.reshape(2, 3, 24, 2, 24, 2).mean(dim=(3, 5))
    torch.testing.assert_close(pooled, expected)
    # A longer side keeps the proportions, as cars are compared at 192 x 256.
    assert Preparation(size=256).shape((384, 512)) == (192, 256)
    assert Preparation(size=(256, 256)).shape((384, 512)) == (256, 256)


def test_words_and_what_is_too_small() -> None:
    how = Preparation(size=256, resize="bicubic (Pillow)", files="JPEG")
    assert how.words((1024, 1024), source=(1024, 1024)) == {
        "resolution": "256 x 256",
        "outputs": "clamped to [-1, 1]",
        "resize": "bicubic (Pillow)",
        "resized from": "1024 x 1024",
        "levels": "uint8",
        "files": "JPEG",
        "files of": "both",
        "JPEG quality": "75",
    }
    plain = Preparation().words((64, 48), source=(64, 48))
    assert plain == {"resolution": "64 x 48", "outputs": "clamped to [-1, 1]"}
    enlarged = how.words((64, 64), source=(64, 64))
    assert enlarged["resolution"] == "256 x 256, enlarged from 64 x 64"
    assert how.too_large_for((64, 64), (64, 64)) and not how.too_large_for((64, 64), (256, 300))
    assert Preparation().too_large_for((256, 256), (255, 255))
    # Official scripts squash cars to a square; that is no enlargement.
    assert not Preparation(size=(256, 256)).too_large_for((192, 256), (192, 256))


@pytest.mark.parametrize(
    ("field", "value"),
    [("resize", "nearest"), ("levels", "uint16"), ("files", "GIF"), ("quality", 0), ("size", 0)],
)
def test_other_fields_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        Preparation(**{field: value})  # type: ignore[arg-type]
