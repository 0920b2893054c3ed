"""Landmarks over time: followed, filled, smoothed."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from clcae.faces import Face, follow, smooth_landmarks

POINTS = torch.tensor([[-20.0, 0], [20, 0], [0, 20], [-15, 40], [15, 40]], dtype=torch.float64)


def at(x: float, y: float = 100.0, scale: float = 1.0) -> Face:
    points = POINTS * scale + torch.tensor([x, y])
    return Face(points, torch.tensor([x - 40 * scale, y, x + 40 * scale, y + 80 * scale]), 1.0)


def test_follow_keeps_to_one_face_though_another_grows() -> None:
    frames = [[at(100 + 5 * t), at(400 - 5 * t, scale=0.5 + 0.1 * t)] for t in range(20)]
    landmarks = follow(frames, "largest")
    assert landmarks[:, :, 0].mean(1).tolist() == [100 + 5 * t for t in range(20)]
    landmarks = follow([frame[::-1] for frame in frames], 1)
    assert landmarks[:, 0, 0].isfinite().all() and landmarks[-1, 2, 0] == 400 - 95


def test_follow_leaves_out_what_is_missing_or_elsewhere() -> None:
    frames = [[], [at(100)], [], [at(110)], [at(400)], [at(118)]]
    landmarks = follow(frames)
    assert landmarks[:, 0, 0].isnan().tolist() == [True, False, True, False, True, False]


def test_follow_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="no face found in any of 3 frames"):
        follow([[], [], []])
    with pytest.raises(ValueError, match="faces all"):
        follow([[at(0)]], "all")
    with pytest.raises(ValueError, match="no face 1: 1 found"):
        follow([[at(0)], [at(0), at(100)]], 1)


@pytest.mark.parametrize("deviation", [0.7, 2.0, 5.0])
def test_smoothing_is_gaussian_within_the_video(deviation: float) -> None:
    values = np.random.default_rng(0).normal(size=(100, 10)).cumsum(0)
    ours = smooth_landmarks(torch.from_numpy(values).reshape(-1, 5, 2), deviation=deviation)
    theirs = gaussian_filter1d(values, deviation, axis=0, truncate=5)
    reach = int(4 * deviation) + 2
    inner = slice(reach, -reach)
    np.testing.assert_allclose(ours.reshape(-1, 10)[inner], theirs[inner], atol=2e-3)


def test_steady_motion_is_kept_to_its_ends() -> None:
    t = torch.arange(30, dtype=torch.float64)[:, None, None]
    moving = POINTS + t * torch.tensor([3.0, -1.0])
    assert (smooth_landmarks(moving) - moving).abs().max() < 1e-9
    assert torch.equal(smooth_landmarks(moving[:1]), moving[:1])
    assert (smooth_landmarks(moving[:2]) - moving[:2]).abs().max() < 1e-9
    assert (smooth_landmarks(moving, deviation=1e-3) - moving).abs().max() < 1e-9


def test_trembling_is_removed_at_the_ends_too() -> None:
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(2000, 5, 2)))
    still = smooth_landmarks(noise)
    # The weights' norm: 1 / sqrt(2 sigma sqrt(pi)).
    assert still.std() == pytest.approx((4 * np.sqrt(np.pi)) ** -0.5, rel=0.05)
    starts = smooth_landmarks(noise[:12])[0], smooth_landmarks(noise[100:112])[0]
    assert torch.stack(starts).std() < 1


def test_missing_frames_are_interpolated() -> None:
    t = torch.arange(20, dtype=torch.float64)[:, None, None]
    moving = POINTS + t * torch.tensor([3.0, -1.0])
    gaps = moving.clone()
    gaps[5:9] = torch.nan
    gaps[12, 3, 1] = torch.nan
    assert (smooth_landmarks(gaps) - moving).abs().max() < 1e-9
    gaps = moving.clone()
    gaps[:3], gaps[-2:] = torch.nan, torch.nan
    held = smooth_landmarks(gaps, deviation=1e-3)
    assert (held[:3] - moving[3]).abs().max() < 1e-9
    assert (held[-2:] - moving[-3]).abs().max() < 1e-9


def test_refusals() -> None:
    with pytest.raises(ValueError, match="none of 4 frames"):
        smooth_landmarks(torch.full((4, 5, 2), torch.nan))
    with pytest.raises(ValueError, match=r"\(0, 5, 2\)|none of 0 frames"):
        smooth_landmarks(torch.zeros(0, 5, 2))
    with pytest.raises(ValueError, match=r"\(5, 2\)"):
        smooth_landmarks(torch.zeros(5, 2))
    with pytest.raises(ValueError, match="deviation is 0"):
        smooth_landmarks(torch.zeros(4, 5, 2), deviation=0)
