"""Photographs as a method reads them, masks, and pictures back in their place; by hand."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from clcae.data.pictures import Item
from clcae.images import from_pil
from clcae.photographs.cutouts import content, cut_middle, put_back
from clcae.photographs.masks import Mask, feathered, read_mask
from clcae.photographs.passes import check_names, part_names


def test_a_mask_rises_from_its_border_inwards() -> None:
    mask = torch.zeros(5, 9)
    mask[:, 1:8] = 1  # touches the picture's border above and below, which counts for nothing
    expected = torch.tensor([0, 1 / 3, 2 / 3, 1, 1, 1, 2 / 3, 1 / 3, 0]).expand(5, -1)
    torch.testing.assert_close(feathered(mask, 2), expected)
    assert torch.equal(feathered(mask, 0), mask)


def test_boxes_are_cut_at_the_picture() -> None:
    alpha = read_mask("-5,2,3,99", feather=0).alpha((4, 6))
    expected = torch.zeros(4, 6)
    expected[2:, :3] = 1
    assert torch.equal(alpha, expected)
    with pytest.raises(ValueError, match="outside the picture of 6 x 4 pixels"):
        read_mask("6,0,9,4", feather=0).alpha((4, 6))


def test_within_a_mask() -> None:
    photo, edited = torch.full((3, 1, 3), 0.1), torch.full((3, 1, 3), 0.5)
    mask = Mask(None, torch.tensor([[0.0, 0.25, 1.0]]), 0, "painted")
    result = mask.apply(photo, edited)
    torch.testing.assert_close(result, torch.tensor([0.1, 0.2, 0.5]).expand(3, 1, 3))


def test_rows_that_stand_for_an_image_of_another_aspect() -> None:
    square = torch.arange(64.0)[:, None].expand(3, 64, 64)
    assert content(square, (192, 256))[0, :, 0].tolist() == list(range(8, 56))
    assert content(square, (32, 32)).shape == (3, 64, 64)
    assert content(square[:, 8:56], (192, 256)).shape == (3, 48, 64)


@pytest.mark.parametrize(("size", "shape"), [((9, 6), (3, 3)), ((6, 9), (3, 3)), ((8, 9), (2, 4))])
def test_a_cutout_and_the_way_back(size: tuple[int, int], shape: tuple[int, int]) -> None:
    photo = from_pil(Image.effect_noise((size[1], size[0]), 90).convert("RGB"))
    cutout = cut_middle(photo, shape)
    assert cutout.image.shape == (3, *shape)
    (left, top), (right, bottom) = (cutout.quad[[0, 2]] + 0.5).int().tolist()
    width, height = right - left, bottom - top
    assert abs(width / height - shape[1] / shape[0]) < 0.3 and width * height > 0
    white = torch.ones(3, 16, 16)
    put = put_back(photo, white, cutout)
    assert (put[:, top:bottom, left:right] > 0.999).all()
    put[:, top:bottom, left:right] = photo[:, top:bottom, left:right]
    assert torch.equal(put, photo)
    same = put_back(photo, white, cutout, reference=white)
    torch.testing.assert_close(same, photo)


def test_names() -> None:
    assert part_names("a", 1) == ["a"]
    assert part_names("b/a", 2) == ["b/a-0", "b/a-1"]
    items = [Item(Path(f"{name}.png"), name) for name in ("a", "A-strip", "b-strip", "a-7")]
    check_names(items, ["crop"])
    for ending in ("strip", r"\d+"):
        with pytest.raises(ValueError, match="mixed with those of 'a'"):
            check_names(items, [ending])
