"""Photographs as a method reads them, masks, and pictures back in their place; by hand."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from clcae.data.pictures import Item
from clcae.photographs.cutouts import (
    box_mask,
    content,
    face_names,
    feathered,
    forgotten,
    packed,
    put_back,
    read_middle,
    unpacked,
    within,
)
from clcae.photographs.passes import check_names


def test_a_mask_rises_from_its_border_inwards() -> None:
    mask = torch.zeros(5, 9)
    mask[:, 1:8] = 1  # touches the picture's border above and below, which counts for nothing
    expected = torch.tensor([0, 1 / 3, 2 / 3, 1, 1, 1, 2 / 3, 1 / 3, 0]).expand(5, -1)
    torch.testing.assert_close(feathered(mask, 2), expected)
    assert torch.equal(feathered(mask, 0), mask)


def test_boxes_are_cut_at_the_picture() -> None:
    alpha = box_mask((-5, 2, 3, 99), feather=0)((4, 6))
    expected = torch.zeros(4, 6)
    expected[2:, :3] = 1
    assert torch.equal(alpha, expected)
    with pytest.raises(ValueError, match="outside the picture of 6 x 4 pixels"):
        box_mask((6, 0, 9, 4), feather=0)((4, 6))


def test_within_a_mask() -> None:
    photo, edited = torch.full((3, 1, 3), 0.1), torch.full((3, 1, 3), 0.5)
    result = within(torch.tensor([[0.0, 0.25, 1.0]]), photo, edited)
    torch.testing.assert_close(result, torch.tensor([0.1, 0.2, 0.5]).expand(3, 1, 3))


def test_rows_that_stand_for_an_image_of_another_aspect() -> None:
    square = torch.arange(64.0)[:, None].expand(3, 64, 64)
    assert content(square, (192, 256))[0, :, 0].tolist() == list(range(8, 56))
    assert content(square, (32, 32)).shape == (3, 64, 64)
    assert content(square[:, 8:56], (192, 256)).shape == (3, 48, 64)


@pytest.mark.parametrize(("size", "shape"), [((9, 6), (3, 3)), ((6, 9), (3, 3)), ((8, 9), (2, 4))])
def test_a_cutout_and_the_way_back(
    size: tuple[int, int], shape: tuple[int, int], tmp_path: Path
) -> None:
    path = tmp_path / "a.png"
    Image.effect_noise((size[1], size[0]), 90).convert("RGB").save(path)
    photograph = read_middle(path, shape=shape)
    (cutout,) = photograph.cutouts
    assert photograph.size == size and cutout.image.shape == (3, *shape)
    assert photograph.image is not None and forgotten(photograph).image is None
    small = packed(photograph).image
    assert small is not None and small.dtype == torch.uint8
    assert torch.equal(unpacked(small), photograph.image)
    (left, top), (right, bottom) = (cutout.quad[[0, 2]] + 0.5).int().tolist()
    width, height = right - left, bottom - top
    assert abs(width / height - shape[1] / shape[0]) < 0.3 and width * height > 0
    white = torch.ones(3, 16, 16)
    put = put_back(small, white, cutout)
    assert (put[:, top:bottom, left:right] > 0.999).all()
    put[:, top:bottom, left:right] = photograph.image[:, top:bottom, left:right]
    assert torch.equal(put, photograph.image)
    same = put_back(small, white, cutout, reference=white)
    torch.testing.assert_close(same, photograph.image)


def test_names() -> None:
    assert face_names("a", 1) == ["a"]
    assert face_names("b/a", 2) == ["b/a-0", "b/a-1"]
    items = [Item(Path(f"{name}.png"), name) for name in ("a", "A-strip", "b-strip", "a-7")]
    check_names(items, ["crop"])
    for ending in ("strip", r"\d+"):
        with pytest.raises(ValueError, match="mixed with those of 'a'"):
            check_names(items, [ending])
