"""The pictures: their range, what they depend on, and that each attribute and detail is seen."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clcae.portraits import (
    ATTRIBUTES,
    DETAILS,
    NUM_LATENTS,
    Group,
    PortraitImages,
    decode,
    group_slice,
    render,
)
from clcae.portraits.canvas import Canvas


def draw(latents: Tensor, **attributes: float) -> Tensor:
    """Draws portraits without details, some attribute latents set; the others are plain."""
    columns = latents.clone()
    start = group_slice(Group.ATTRIBUTE).start
    plain = {"smile": 0.0, "age": -1.0, "glasses": -3.0, "beard": -3.0, "eye_openness": 0.5}
    for position, name in enumerate(ATTRIBUTES):
        columns[:, start + position] = {**plain, **attributes}.get(name, 0.0)
    return render(decode(columns, detail_rate=0.0))


@pytest.fixture(scope="module")
def latents() -> Tensor:
    return PortraitImages(split="validation").latents(range(24))


def test_range_shape_and_type(latents: Tensor) -> None:
    images = render(decode(latents, detail_rate=0.5), size=48)
    assert images.shape == (24, 3, 48, 48)
    assert images.dtype == torch.float32
    assert images.min() >= -1.0 and images.max() <= 1.0
    assert images.std() > 0.2
    assert render(decode(latents[:0], detail_rate=0.5)).shape == (0, 3, 64, 64)


def test_extreme_latents_stay_finite() -> None:
    extremes = 7.0 * torch.randn(64, NUM_LATENTS, generator=torch.Generator().manual_seed(3)).sign()
    assert render(decode(extremes, detail_rate=0.5)).isfinite().all()


def test_a_portrait_does_not_depend_on_the_others(latents: Tensor) -> None:
    whole = render(decode(latents, detail_rate=0.5))
    order = torch.randperm(24, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(render(decode(latents[order], detail_rate=0.5)), whole[order])
    alone = render(decode(latents[7:8], detail_rate=0.5))
    torch.testing.assert_close(alone, whole[7:8])


def test_larger_pictures_show_the_same(latents: Tensor) -> None:
    small = render(decode(latents, detail_rate=0.0), size=64)
    large = render(decode(latents, detail_rate=0.0), size=128)
    difference = (F.avg_pool2d(large, 2) - small).abs()
    # Lines thinner than a pixel differ a little; outlines do not.
    assert difference.mean() < 0.012
    assert difference.mean((1, 2, 3)).max() < 0.03


def test_windows_cut_nothing_off(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(4)
    parameters = decode(1.5 * torch.randn(96, NUM_LATENTS, generator=generator), detail_rate=1.0)
    images = render(parameters)
    window = Canvas.window

    def wider(canvas: Canvas, left: float, top: float, right: float, bottom: float) -> Canvas:
        return window(canvas, left - 0.06, top - 0.06, right + 0.06, bottom + 0.06)

    monkeypatch.setattr(Canvas, "window", wider)
    torch.testing.assert_close(render(parameters), images, atol=1e-4, rtol=0.0)


def test_nothing_needs_a_gradient(latents: Tensor) -> None:
    images = render(decode(latents.clone().requires_grad_(), detail_rate=0.5))
    assert not images.requires_grad


def test_yaw_moves_the_eyes_sideways(latents: Tensor) -> None:
    # Where opening the eyes changes the picture.
    columns = torch.linspace(-1.0, 1.0, 64)
    centroids = []
    for yaw in (-1.5, 1.5):
        change = (draw(latents, yaw=yaw) - draw(latents, yaw=yaw, eye_openness=-3.0)).abs().mean(1)
        weight = change.sum(1)
        centroids.append((weight * columns).sum(1) / weight.sum(1))
    assert (centroids[0] < -0.05).all()
    assert (centroids[1] > 0.05).all()


def test_pitch_moves_the_eyes_up(latents: Tensor) -> None:
    rows = torch.linspace(-1.0, 1.0, 64)
    centroids = []
    for pitch in (-1.5, 1.5):
        change = draw(latents, pitch=pitch) - draw(latents, pitch=pitch, eye_openness=-3.0)
        weight = change.abs().mean((1, 3))
        centroids.append((weight * rows).sum(1) / weight.sum(1))
    assert (centroids[1] < centroids[0] - 0.05).all()


def test_light_brightens_its_side(latents: Tensor) -> None:
    for light, sign in ((-2.0, -1.0), (2.0, 1.0)):
        images = draw(latents, light=light) - draw(latents)
        sides = images[..., 32:].mean((1, 2, 3)) - images[..., :32].mean((1, 2, 3))
        assert (sign * sides > 0.01).all()


def test_smile_shows_teeth_and_only_changes_the_lower_face(latents: Tensor) -> None:
    change = (draw(latents, smile=2.0) - draw(latents, smile=-2.0)).abs().mean(1)
    assert (change[:, 30:56, 16:48].mean((1, 2)) > 0.02).all()
    assert change[:, :26].max() < 1e-5


def test_age_greys_hair_and_keeps_identity_tint(latents: Tensor) -> None:
    young, old = draw(latents, age=-2.0), draw(latents, age=2.0)
    assert ((old - young).abs().mean((1, 2, 3)) > 0.01).all()
    saturation = [image.amax(1) - image.amin(1) for image in (young, old)]
    assert saturation[1].mean() < saturation[0].mean()


def test_glasses_darken_the_eyes_surroundings(latents: Tensor) -> None:
    # A third of the pixels around the eyes at most are frame, and dark skin hardly darkens.
    change = (draw(latents, glasses=3.0) - draw(latents)).mean(1)
    assert (change.clamp_max(0.0)[:, 20:40, 12:52].mean((1, 2)) < -0.01).all()
    assert change[:, 48:].abs().max() < 1e-5


def test_a_beard_grows_from_nothing(latents: Tensor) -> None:
    none, stubble, full = (draw(latents, beard=beard) for beard in (0.0, 0.3, 2.5))
    torch.testing.assert_close(none, draw(latents))
    small, large = ((image - none).abs().mean((1, 2, 3)) for image in (stubble, full))
    assert small.mean() < large.mean()
    assert (large > 0.006).all()


def test_closed_eyes_hide_the_white(latents: Tensor) -> None:
    change = (draw(latents, eye_openness=2.0) - draw(latents, eye_openness=-3.0)).abs().mean(1)
    assert (change[:, 16:44].amax((1, 2)) > 0.3).all()


@pytest.mark.parametrize("detail", DETAILS)
def test_each_detail_is_visible(latents: Tensor, detail: str) -> None:
    columns = latents.clone()
    start = group_slice(Group.DETAIL).start
    columns[:, start : start + len(DETAILS)] = -9.0
    bare = render(decode(columns, detail_rate=0.5))
    columns[:, start + DETAILS.index(detail)] = 9.0
    change = (render(decode(columns, detail_rate=0.5)) - bare).abs().amax(1)
    # At least a dozen pixels change by a tenth of the range.
    assert ((change > 0.2).sum((1, 2)) >= 12).float().mean() > 0.9


def test_people_look_different(latents: Tensor) -> None:
    images = draw(latents)
    distances = torch.cdist(images.flatten(1), images.flatten(1)) / images[0].numel() ** 0.5
    distances.fill_diagonal_(1.0)
    assert distances.min() > 0.1
