"""A crop back into its photograph: what changes, and what does not."""

import numpy as np
import pytest
import torch
from skimage.draw import polygon2mask
from torch import Tensor

from clcae.faces import Face, crop_quad, ffhq_quad, paste_back
from clcae.images import to_uint8


def inside(quad: Tensor, shape: tuple[int, int]) -> np.ndarray:
    """Pixels of a photograph within a quad, by scikit-image."""
    return polygon2mask(shape, quad.flip(1).numpy())


@pytest.mark.parametrize("size", [256, 512, 1024])
def test_an_unedited_crop_changes_little_inside_and_nothing_outside(
    photo: Tensor, face: Face, size: int
) -> None:
    quad = ffhq_quad(face.landmarks)
    pasted = paste_back(photo, crop_quad(photo, quad, size), quad)
    mask = inside(quad, (512, 512))
    assert torch.equal(pasted[:, ~mask], photo[:, ~mask])
    change = (to_uint8(pasted).float() - to_uint8(photo).float()).abs()
    assert change[:, mask].mean() <= 2


@pytest.mark.parametrize("size", [16, 64, 256])
def test_with_a_reference_an_unedited_crop_changes_nothing(
    photo: Tensor, face: Face, size: int
) -> None:
    quad = ffhq_quad(face.landmarks)
    crop = crop_quad(photo, quad, size)
    assert torch.equal(paste_back(photo, crop, quad, reference=crop), photo)


@pytest.mark.parametrize(("left", "top"), [(0, 0), (170, 70), (230, 110)])
def test_nothing_changes_outside_where_the_quad_leaves_the_picture(
    photo: Tensor, face: Face, left: int, top: int
) -> None:
    part = photo[:, top:, left:].contiguous()
    quad = ffhq_quad(face.landmarks) - torch.tensor([left, top])
    pasted = paste_back(part, -crop_quad(part, quad, 128), quad)
    mask = inside(quad, tuple(part.shape[-2:]))
    assert torch.equal(pasted[:, ~mask], part[:, ~mask])
    assert not torch.equal(pasted, part)


@pytest.mark.parametrize("size", [50, 200, 600])
def test_the_quad_is_undone_exactly(size: int) -> None:
    y, x = torch.meshgrid(torch.arange(500.0), torch.arange(600.0), indexing="ij")
    photo = torch.stack([x, y, x + y]) / 1000 - 0.5
    quad = ffhq_quad(torch.tensor([[250.0, 220], [310, 240], [270, 270], [240, 285], [290, 300]]))
    crop = crop_quad(photo, quad, size)
    pasted = paste_back(torch.zeros_like(photo), crop, quad)
    centre = quad.mean(0)
    core = inside(centre + (quad - centre) * 0.7, (500, 600))  # within the seam
    assert core.sum() > 5000
    off = (pasted - photo)[:2, core].abs().max() * 1000
    assert off < 0.1  # pixels


def test_an_edit_arrives_and_fades_towards_the_edge(photo: Tensor, face: Face) -> None:
    quad = ffhq_quad(face.landmarks)
    white = torch.ones(3, 256, 256)
    pasted = paste_back(photo, white, quad)
    centre = quad.mean(0)
    assert (pasted[:, inside(centre + (quad - centre) * 0.79, (512, 512))] > 0.9999).all()
    black = torch.full_like(photo, -1)
    seam = paste_back(black, white, quad)[0, 110, 138:168]  # across the left edge
    assert seam[0] == -1 and seam[-1] > 0.9
    assert (seam.diff() > -1e-5).all() and seam.diff().max() < 0.25
    hard = paste_back(black, white, quad, seam=0)
    assert sorted(set(hard.mul(100).round().unique().tolist())) == [-100, 100]


def test_a_difference_keeps_the_detail_of_the_photograph(photo: Tensor, face: Face) -> None:
    quad = ffhq_quad(face.landmarks)
    crop = crop_quad(photo, quad, 64)
    brighter = crop + 0.1
    pasted = paste_back(photo, brighter, quad, reference=crop)
    centre = quad.mean(0)
    core = inside(centre + (quad - centre) * 0.7, (512, 512))
    expected = (photo + 0.1).clamp(-1, 1)
    assert (pasted - expected)[:, core].abs().max() < 1e-5
    assert (paste_back(photo, brighter, quad) - expected)[:, core].abs().mean() > 0.02


def test_the_photograph_given_stays_as_it_was(photo: Tensor, face: Face) -> None:
    before = photo.clone()
    paste_back(photo, torch.ones(3, 64, 64), ffhq_quad(face.landmarks))
    assert torch.equal(photo, before)


def test_refusals(photo: Tensor, face: Face) -> None:
    quad = ffhq_quad(face.landmarks)
    crop = torch.zeros(3, 64, 64)
    with pytest.raises(ValueError, match=r"crop is \(64, 64\)"):
        paste_back(photo, crop[0], quad)
    with pytest.raises(ValueError, match=r"reference is \(3, 32, 32\)"):
        paste_back(photo, crop, quad, reference=torch.zeros(3, 32, 32))
    with pytest.raises(ValueError, match=r"seam is 0\.7"):
        paste_back(photo, crop, quad, seam=0.7)
    with pytest.raises(ValueError, match="expected a square"):
        paste_back(photo, crop, quad[[0, 2, 1, 3]])
