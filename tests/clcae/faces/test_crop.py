"""The FFHQ crop against the published recipe, written down here in numpy, SciPy and Pillow."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from clcae.faces import Face, crop_quad, ffhq_quad, is_aligned, picture_quad
from clcae.faces.crop import gaussian_blur
from clcae.images import to_pil, to_uint8


def recipe_quad(points: np.ndarray) -> np.ndarray:
    """The published formula: eyes, mouth, oriented rectangle."""
    eye_left, eye_right, _, mouth_left, mouth_right = points
    eye_avg = (eye_left + eye_right) * 0.5
    eye_to_eye = eye_right - eye_left
    eye_to_mouth = (mouth_left + mouth_right) * 0.5 - eye_avg
    x = eye_to_eye - np.flipud(eye_to_mouth) * [-1, 1]
    x /= np.hypot(*x)
    x *= max(np.hypot(*eye_to_eye) * 2.0, np.hypot(*eye_to_mouth) * 1.8)
    y = np.flipud(x) * [-1, 1]
    c = eye_avg + eye_to_mouth * 0.1
    return np.stack([c - x - y, c - x + y, c + x + y, c + x - y])


def recipe_crop(picture: Image.Image, quad: np.ndarray, size: int) -> np.ndarray:
    """The published steps, the first of which (shrinking) does not concern these pictures."""
    qsize = np.hypot(*(quad[3] - quad[0]))
    assert qsize / size / 2 < 2
    border = max(round(qsize * 0.1), 3)
    low, high = np.floor(quad.min(0)).astype(int), np.ceil(quad.max(0)).astype(int)
    left, top = max(low[0] - border, 0), max(low[1] - border, 0)
    right, bottom = min(high[0] + border, picture.width), min(high[1] + border, picture.height)
    picture, quad = picture.crop((left, top, right, bottom)), quad - [left, top]
    low, high = np.floor(quad.min(0)).astype(int), np.ceil(quad.max(0)).astype(int)
    pad = np.maximum([*(border - low), *(high - picture.size + border)], 0)
    if pad.max() > border - 4:
        pad = np.maximum(pad, round(qsize * 0.3))
        image = np.pad(np.float32(picture), ((pad[1], pad[3]), (pad[0], pad[2]), (0, 0)), "reflect")
        height, width, _ = image.shape
        y, x, _ = np.ogrid[:height, :width, :1]
        mask = np.maximum(
            1 - np.minimum(x / pad[0], (width - 1 - x) / pad[2]),
            1 - np.minimum(y / pad[1], (height - 1 - y) / pad[3]),
        )
        blurred = ndimage.gaussian_filter(image, [qsize * 0.02, qsize * 0.02, 0])
        image += (blurred - image) * np.clip(mask * 3 + 1, 0, 1)
        image += (np.median(image, axis=(0, 1)) - image) * np.clip(mask, 0, 1)
        picture = Image.fromarray(np.uint8(np.clip(np.rint(image), 0, 255)))
        quad = quad + pad[:2]
    points = (4 * size, 4 * size)
    corners = (quad + 0.5).flatten().tolist()
    picture = picture.transform(points, Image.Transform.QUAD, corners, Image.Resampling.BILINEAR)
    return np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS)).astype(float)


def levels(image: Tensor) -> np.ndarray:
    return to_uint8(image).permute(1, 2, 0).numpy().astype(float)


def ramp(height: int, width: int) -> Tensor:
    """A picture whose channels say where a pixel is, in units of 1000 pixels."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y, x * 0]) / 1000 - 0.5


def test_quad_is_the_published_formula(face: Face) -> None:
    published = recipe_quad(face.landmarks.numpy())
    assert np.abs(ffhq_quad(face.landmarks).numpy() - published).max() < 0.5
    rng = np.random.default_rng(0)
    for _ in range(50):
        points = rng.normal(0, 100, (5, 2))
        quad = ffhq_quad(torch.from_numpy(points)).numpy()
        np.testing.assert_allclose(quad, recipe_quad(points), atol=1e-9)


def test_quad_is_upright_in_the_picture_and_around_the_face(face: Face) -> None:
    top_left, bottom_left, bottom_right, top_right = ffhq_quad(face.landmarks)
    assert top_left[0] < top_right[0] and bottom_left[0] < bottom_right[0]
    assert top_left[1] < bottom_left[1] and top_right[1] < bottom_right[1]
    assert (ffhq_quad(face.landmarks).mean(0) - face.landmarks.mean(0)).norm() < 20


def test_quad_refuses_what_is_no_face() -> None:
    with pytest.raises(ValueError, match="five finite points"):
        ffhq_quad(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="five finite points"):
        ffhq_quad(torch.full((5, 2), torch.nan))
    with pytest.raises(ValueError, match="no face"):
        ffhq_quad(torch.ones(5, 2))


@pytest.mark.parametrize("size", [64, 100, 256, 512])
def test_crop_takes_every_pixel_from_where_the_quad_says(size: int) -> None:
    quad = ffhq_quad(torch.tensor([[400.0, 300], [520, 330], [440, 380], [380, 420], [480, 440]]))
    crop = crop_quad(ramp(900, 1000), quad, size)
    steps = (torch.arange(size) + 0.5)[:, None] / size
    places = quad[0] + steps[:, None] * (quad[1] - quad[0]) + steps * (quad[3] - quad[0])
    found = (crop[:2].permute(1, 2, 0) + 0.5) * 1000
    inner = slice(size // 10, -size // 10)  # filters of the crop end at its edge
    assert (found - places)[inner, inner].abs().max() < 0.1  # of a pixel of the photograph


def test_crop_shrinks_large_pictures_without_aliasing() -> None:
    rng = torch.Generator().manual_seed(0)
    noise = torch.rand(3, 1200, 1200, generator=rng) * 2 - 1
    quad = torch.tensor([[100.0, 100], [100, 1100], [1100, 1100], [1100, 100]])
    crop = crop_quad(noise, quad, 50)
    # White noise averaged over 20 x 20 pixels; a bilinear crop would keep most of its 0.58.
    assert crop.std() < 0.58 / 10
    assert crop.mean().abs() < 0.02


def test_crop_is_that_of_the_recipe(photo: Tensor, face: Face) -> None:
    quad = ffhq_quad(face.landmarks)
    published = recipe_crop(to_pil(photo), quad.numpy(), 256)
    # The recipe's bilinear filter is a little softer than ours.
    assert np.abs(levels(crop_quad(photo, quad, 256)) - published).mean() < 2


@pytest.mark.parametrize(
    ("left", "top", "bottom", "right"), [(170, 70, 400, 512), (0, 60, 190, 512), (0, 30, 150, 260)]
)
def test_borders_are_mirrored_and_blurred_as_in_the_recipe(
    photo: Tensor, face: Face, left: int, top: int, bottom: int, right: int
) -> None:
    part = photo[:, top:bottom, left:right].contiguous()
    quad = ffhq_quad(face.landmarks) - torch.tensor([left, top])
    published = recipe_crop(to_pil(part), quad.numpy(), 256)
    assert np.abs(levels(crop_quad(part, quad, 256)) - published).mean() < 2


def test_quad_larger_than_the_picture(photo: Tensor) -> None:
    small = photo[:, 60:160, 180:270].contiguous()
    quad = torch.tensor([[-300.0, -300], [-300, 400], [400, 400], [400, -300]])
    crop = crop_quad(small, quad, 64)
    assert torch.isfinite(crop).all()
    edge = torch.cat([crop[:, 0], crop[:, -1]], dim=1)
    assert edge.std(dim=1).max() < 0.05  # one colour, the median


def test_crop_refuses_bad_quads(photo: Tensor, face: Face) -> None:
    quad = ffhq_quad(face.landmarks)
    with pytest.raises(ValueError, match="outside the picture"):
        crop_quad(photo, quad + 1000, 64)
    with pytest.raises(ValueError, match="expected a square"):
        crop_quad(photo, quad.flip(0), 64)
    with pytest.raises(ValueError, match="four finite corners"):
        crop_quad(photo, quad[:3], 64)
    with pytest.raises(ValueError, match=r"\(1, 512, 512\)"):
        crop_quad(photo[:1], quad, 64)
    with pytest.raises(ValueError, match="size 0"):
        crop_quad(photo, quad, 0)


def test_aligned_within_ten_per_cent_of_the_side() -> None:
    whole = picture_quad(200, 200)
    assert whole.tolist() == [[-0.5, -0.5], [-0.5, 199.5], [199.5, 199.5], [199.5, -0.5]]
    assert is_aligned(whole, 200, 200)
    assert is_aligned(whole + torch.tensor([19.0, 0]), 200, 200)
    assert not is_aligned(whole + torch.tensor([21.0, 0]), 200, 200)
    assert not is_aligned(whole.roll(1, 0), 200, 200)  # lying on its side
    assert not is_aligned(picture_quad(200, 210), 200, 210)


@pytest.mark.parametrize("deviation", [0.5, 3.0, 9.0, 40.0])
def test_blur_is_gaussian(deviation: float) -> None:
    rng = np.random.default_rng(0)
    image = ndimage.zoom(rng.normal(size=(20, 24)), 10, order=1)[:190, :230]
    ours = gaussian_blur(torch.from_numpy(np.stack([image] * 3)), deviation)
    theirs = ndimage.gaussian_filter(image, deviation, mode="mirror")
    # From 8 pixels on it is an approximation.
    assert np.abs(ours[0].numpy() - theirs).max() < (
        1e-5 if deviation < 8 else 0.015 * np.ptp(image)
    )
