"""The walk on the sphere: the official loop, its limit, its law, and what edits rely on."""

import math
from collections.abc import Callable

import goldens
import numpy as np
import official
import pytest
import torch
from torch import Tensor

from clcae.stylegan2 import normalize_z, slerp, walk, walk_in_steps

TOLERANCE = 5e-5  # of tests/fixtures/README.md
# Rounding of the official loop, a thousand sums in float32: in float64 it differs by 1.3e-4.
OFFICIAL_ROUNDING = 2e-4


def random(seed: int, *shape: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def limit(z: Tensor, shift: Tensor) -> Tensor:
    """Where ever smaller steps lead: two numbers of them, and their error taken out."""
    coarse, fine = (walk_in_steps(z, shift, steps=steps) for steps in (3000, 6000))
    return 2 * fine - coarse  # the error is inverse to the number of steps


def test_the_official_loop() -> None:
    """`edit_interfacegan_zp.linear_interpolate`, by the loop and by the closed form."""
    golden = goldens.Golden("zplus_64", TOLERANCE)
    described = golden.meta["walk"]
    boundary = official.latent(*described["boundary"][:2], 1)
    boundary = boundary / boundary.norm(dim=-1, keepdim=True)
    distances = torch.linspace(described["start"], described["end"], described["steps"])
    shifts = distances[:, None, None] * boundary
    z = official.latent(*described["z"][:2], 1).expand_as(shifts)
    # The official loop puts codes that do not move on the sphere too.
    golden.check("walk", normalize_z(walk_in_steps(z, shifts)))
    golden.check("walk", normalize_z(walk(z, shifts)), OFFICIAL_ROUNDING)
    exact = walk_in_steps(normalize_z(z.double()), shifts.double())
    assert (walk(normalize_z(z), shifts) - exact).abs().max() < 5e-6


@pytest.mark.parametrize("strength", [0.01, 1.0, 4.0, 12.0])
@pytest.mark.parametrize("width", [3, 16])
def test_the_limit_of_ever_smaller_steps(width: int, strength: float) -> None:
    """At the farthest, half of the rows have come to rest."""
    z, shift = normalize_z(random(1, 50, width)), random(2, 50, width) * strength
    moved = walk(z, shift)
    assert (moved - limit(z, shift)).abs().max() < 1e-4
    errors = [
        (moved - walk_in_steps(z, shift, steps=steps)).abs().max() for steps in (500, 1000, 2000)
    ]
    assert errors[0] > 1.9 * errors[1] > 3.6 * errors[2] > 0


def test_the_angle_obeys_its_law() -> None:
    """Angles by numpy: artanh of the cosine grows by |b| / sqrt(D), in the plane of z and b."""
    z, shift = normalize_z(random(1, 40, 5)).numpy(), 3 * random(2, 40, 5).numpy()
    moved = walk(torch.from_numpy(z), torch.from_numpy(shift)).numpy()
    for before, after, by in zip(z, moved, shift, strict=True):
        length = np.linalg.norm(by)
        cosines = [np.dot(code, by) / (length * math.sqrt(5)) for code in (before, after)]
        wanted = np.tanh(np.arctanh(cosines[0]) + length / math.sqrt(5))
        assert cosines[1] == pytest.approx(wanted, abs=1e-6)
        assert np.linalg.matrix_rank(np.stack([before, by, after]), tol=1e-6) == 2


def test_the_way_back_returns_and_walks_add_up() -> None:
    z = normalize_z(random(3, 4, 18, 512)).float()
    shift = random(4, 4, 18, 512).float()
    shift = shift / shift.norm(dim=-1, keepdim=True) * torch.linspace(0.1, 60, 18)[:, None]
    there = walk(z, shift)
    assert (there - z).abs().max() > 1
    assert (walk(there, -shift) - z).abs().max() < 1e-3 / 2
    torch.testing.assert_close(walk(walk(z, 0.3 * shift), 0.7 * shift), there, rtol=0, atol=1e-5)
    far = walk(z.double(), 3 * shift.double())
    assert (walk(far, -3 * shift.double()) - z.double()).abs().max() < 1e-6


def test_rows_stay_on_the_sphere() -> None:
    z, shift = normalize_z(random(5, 3, 6, 512)).float(), random(6, 3, 6, 512).float()
    for index in range(300):
        z = walk(z, shift.roll(index, dims=-1))
    assert (z.norm(dim=-1) / math.sqrt(512) - 1).abs().max() < 1e-5
    off = walk(7.3 * z, shift)  # from outside too
    assert (off.norm(dim=-1) / math.sqrt(512) - 1).abs().max() < 1e-5


@pytest.mark.parametrize("function", [walk, walk_in_steps])
def test_rows_that_do_not_move_are_untouched(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    z, shift = random(7, 2, 5, 16).float(), random(8, 2, 5, 16).float()
    assert torch.equal(function(z, torch.zeros_like(z)), z)
    shift[:, 2:4] = 0
    moved = function(z, shift)
    assert torch.equal(moved[:, 2:4], z[:, 2:4]) and not torch.isclose(moved[:, :2], z[:, :2]).all()


def test_equal_rows_stay_equal() -> None:
    for rows, width in ((18, 512), (10, 128), (7, 33)):
        z = random(9, 3, 1, width).float().expand(-1, rows, -1)
        moved = walk(z, random(10, 1, 1, width).float().expand_as(z))
        assert torch.equal(moved, moved[:, :1].expand_as(moved))


def test_far_walks_come_to_rest_at_the_pole() -> None:
    shift = random(11, 1, 512).float()
    pole = normalize_z(shift)
    starts = torch.cat([normalize_z(random(12, 5, 512)).float(), pole, -pole])
    for strength in (1e2, 1e6, 1e15, 1e20, 1e36):  # the squares of the last two overflow
        moved = walk(starts, (strength * shift).expand_as(starts))
        torch.testing.assert_close(moved[:6], pole.expand(6, -1), rtol=0, atol=1e-5)
        assert moved.isfinite().all()  # of the opposite pole rounding decides
        assert (moved.norm(dim=-1) / math.sqrt(512) - 1).abs().max() < 1e-5
    half = walk(starts.half(), shift.half().expand_as(starts))
    assert half.dtype == torch.float16 and half.isfinite().all()


def test_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="steps is 0, expected 1 or more"):
        walk_in_steps(torch.ones(1, 4), torch.ones(1, 4), steps=0)


def test_one_step_is_a_sum_on_the_sphere() -> None:
    """`edit_ganspace_zp.py`."""
    z, shift = random(13, 4, 16), random(14, 4, 16)
    torch.testing.assert_close(walk_in_steps(z, shift, steps=1), normalize_z(z + shift))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.8, 1.0])
def test_slerp_is_that_of_the_angle(share: float) -> None:
    """The formula of `interpolate_zp.py` in numpy."""
    first, second = 3 * random(15, 6, 16), random(16, 6, 16)
    found = slerp(first, second, share).numpy()
    for one, other, between in zip(first.numpy(), second.numpy(), found, strict=True):
        one, other = one / np.linalg.norm(one), other / np.linalg.norm(other)
        angle = np.arccos(one @ other)
        wanted = (np.sin((1 - share) * angle) * one + np.sin(share * angle) * other) / np.sin(angle)
        np.testing.assert_allclose(between, 4 * wanted, atol=1e-6)


def test_slerp_of_equal_and_of_opposite_rows() -> None:
    z = normalize_z(random(17, 3, 16).float())
    torch.testing.assert_close(slerp(z, z, 0.3), z)
    with pytest.raises(ValueError, match="opposite each other"):
        slerp(z, -z, 0.5)
