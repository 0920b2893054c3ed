"""Resizing against Pillow, cropping, mirroring."""

import numpy as np
import pytest
import torch
from PIL import Image

from clcae.data.transforms import Filter, center_crop, resize
from clcae.images import from_pil


@pytest.mark.parametrize(
    ("name", "filter_"),
    [("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)],
)
@pytest.mark.parametrize("size", [(16, 24), (100, 7), (40, 60), (90, 90)])
def test_resize_agrees_with_pillow(
    name: Filter, filter_: Image.Resampling, size: tuple[int, int]
) -> None:
    # Away from the ends, because Pillow clamps the overshoot of bicubic between its two passes.
    pixels = np.random.default_rng(0).integers(64, 192, (40, 60, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    ours = resize(from_pil(picture)[None], size, filter_name=name)[0]
    theirs = from_pil(picture.resize(size[::-1], filter_))
    # Pillow rounds to 256 levels after each pass.
    torch.testing.assert_close(ours, theirs, atol=1.6 / 127.5, rtol=0)


def test_resize_stays_in_range_and_refuses_other_filters() -> None:
    edges = torch.ones(1, 3, 8, 8)
    edges[..., :4] = -1
    assert resize(edges, (20, 20)).abs().max() <= 1
    with pytest.raises(ValueError, match="'lanczos': expected one of bilinear, bicubic"):
        resize(edges, (4, 4), filter_name="lanczos")  # type: ignore[arg-type]


def test_center_crop() -> None:
    image = torch.arange(20.0).view(1, 1, 4, 5)
    assert center_crop(image, (2, 3)).flatten().tolist() == [6, 7, 8, 11, 12, 13]
    assert center_crop(image, (3, 4)).shape == (1, 1, 3, 4)
    assert center_crop(image, (3, 4))[0, 0, 0, 0] == 0, "the larger half is cut below and right"
    with pytest.raises(ValueError, match="4 x 5, smaller than the crop of 5 x 5"):
        center_crop(image, (5, 5))
