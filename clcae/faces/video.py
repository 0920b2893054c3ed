"""Following one face through a video, and smoothing its landmarks over time.

Tzaban et al. 2022 (Stitch it in Time) smooth the landmarks of every frame by a
Gaussian over time before they crop. Deviation: a line is fitted where they average, by the same
Gaussian weights. Within the video that is the same; a steady motion also is kept at its ends.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from clcae.faces.alignment import Face, Which, choose
from clcae.faces.crop import ffhq_quad, quad_side

DEVIATION = 2.0  # frames
LARGEST_STEP = 0.5  # how far a face may move between two sightings, in sides of its crop


def follow(
    frames: Sequence[Sequence[Face]],
    which: Which = "largest",
) -> Tensor:
    """Follows one face: landmarks [T, 5, 2], float64, NaN in frames that do not show it.

    Args:
        frames: the faces of every frame.
        which: "largest" or an index, chosen in the first frame that has faces. Later frames take
            the nearest face, by the mean of its landmarks, within half a side of the last crop.

    Raises:
        ValueError: if no frame shows a face, all faces are asked for, or the first frame with faces
            has none of that index.
    """
    if which == "all":
        raise ValueError("faces all: expected largest or a number, since one face is followed")
    landmarks = torch.full((len(frames), 5, 2), math.nan, dtype=torch.float64)
    last: Tensor | None = None
    for index, faces in enumerate(frames):
        if not faces:
            continue
        if last is None:
            last = choose(faces, which)[0].landmarks
        else:
            centre, reach = last.mean(0), LARGEST_STEP * quad_side(ffhq_quad(last))
            distances = [float((face.landmarks.mean(0) - centre).norm()) for face in faces]
            nearest = min(range(len(faces)), key=distances.__getitem__)
            if distances[nearest] > reach:
                continue
            last = faces[nearest].landmarks
        landmarks[index] = last
    if last is None:
        raise ValueError(f"no face found in any of {len(frames)} frames")
    return landmarks


def smooth_landmarks(
    landmarks: Tensor,  # [T, 5, 2] pixels, NaN where a frame has no face
    *,
    deviation: float = DEVIATION,
) -> Tensor:
    """Smooths landmarks by local linear regression with Gaussian weights: [T, 5, 2], float64.

    Frames without a face are filled first, by linear interpolation, and at the ends by the nearest
    frame that has one. `deviation` is that of the Gaussian, in frames.

    Raises:
        ValueError: if the shape is wrong, no frame has a face, or the deviation is not positive.
    """
    if landmarks.ndim != 3 or landmarks.shape[1:] != (5, 2):
        raise ValueError(f"landmarks are {tuple(landmarks.shape)}: expected [T, 5, 2]")
    if not deviation > 0:
        raise ValueError(f"deviation is {deviation}: expected frames, more than 0")
    values = _filled(landmarks.detach().double().cpu().flatten(1))
    num_frames = len(values)
    if num_frames == 1:
        return values.reshape(1, 5, 2)
    reach = min(math.ceil(4 * deviation), num_frames)
    offsets = torch.arange(-reach, reach + 1)
    neighbours = torch.arange(num_frames)[:, None] + offsets  # [T, K]
    inside = (neighbours >= 0) & (neighbours < num_frames)
    weights = torch.exp(-0.5 * (offsets.double() / deviation) ** 2) * inside
    weights = weights.clamp_min(1e-12) * inside  # a tiny deviation leaves a frame as it is
    seen = values[neighbours.clamp(0, num_frames - 1)]  # [T, K, 10]
    total, first, second = ((weights * offsets**power).sum(1) for power in range(3))
    mean = (weights[..., None] * seen).sum(1)
    slope = ((weights * offsets)[..., None] * seen).sum(1)
    fitted = (second[:, None] * mean - first[:, None] * slope) / (total * second - first**2)[
        :, None
    ]
    return fitted.reshape(-1, 5, 2)


def _filled(
    values: Tensor,  # [T, 10]
) -> Tensor:
    """Fills NaN: linear between frames, constant before the first and after the last."""
    known = torch.isfinite(values).all(dim=1).nonzero()[:, 0]
    if len(known) == 0:
        raise ValueError(f"none of {len(values)} frames has landmarks")
    frames = torch.arange(len(values))
    after = torch.searchsorted(known, frames).clamp(0, len(known) - 1)
    before = (torch.searchsorted(known, frames, right=True) - 1).clamp(0, len(known) - 1)
    start, end = known[before], known[after]
    span = (end - start).clamp_min(1)
    share = ((frames - start).double() / span).clamp(0, 1)[:, None]
    return values[start] + share * (values[end] - values[start])
