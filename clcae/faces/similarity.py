"""The crop of the networks that recognise faces: 112 pixels, by five landmarks.

Deng et al. 2019 (ArcFace), section 4.1; the template is that of insightface (`arcface_src`), the
fit Umeyama 1991 (Least-squares estimation of transformation parameters between two point patterns).
Deviation: resampling has antialiasing where the official one is bilinear; a large face is smoother.
"""

import torch
from torch import Tensor

from clcae.faces.crop import picture_quad, sample, shrunk

TEMPLATE_SIZE = 112
TEMPLATE = (  # left eye, right eye, nose, left and right corner of the mouth
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)


def fit_similarity(
    points: Tensor,  # [K, 2]
    targets: Tensor,  # [K, 2]
) -> Tensor:
    """The rotation, scale and shift that bring points nearest to targets, by least squares.

    Args:
        points: Two or more points.
        targets: Where they should lie.

    Returns:
        [2, 3], float64 on the CPU: targets are about `matrix[:, :2] @ point + matrix[:, 2]`. It
        never mirrors.

    Raises:
        ValueError: Shapes differ, there are fewer than two points, or all points are one.
    """
    points, targets = points.detach().double().cpu(), targets.detach().double().cpu()
    if points.shape != targets.shape or points.ndim != 2 or points.shape[-1] != 2:
        raise ValueError(
            f"points are {tuple(points.shape)} and targets {tuple(targets.shape)}: expected "
            "[K, 2] both"
        )
    if len(points) < 2:
        raise ValueError(f"{len(points)} points: expected at least 2")
    centre, target_centre = points.mean(0), targets.mean(0)
    points, targets = points - centre, targets - target_centre
    spread = float((points**2).sum())
    if not spread > 1e-12:
        raise ValueError(f"points all lie at {centre.tolist()}")
    # In the plane Umeyama's solution has a closed form: one complex factor.
    cosine = float((points * targets).sum()) / spread
    sine = float((points[:, 0] * targets[:, 1] - points[:, 1] * targets[:, 0]).sum()) / spread
    turn = torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float64)
    return torch.cat([turn, (target_centre - turn @ centre)[:, None]], dim=1)


def recognition_quad(
    landmarks: Tensor,  # [5, 2] pixels
) -> Tensor:
    """The corners [4, 2] of the 112 crop in the picture.

    Raises:
        ValueError: The landmarks are not five finite points, or all are one.
    """
    if landmarks.shape != (5, 2) or not torch.isfinite(landmarks).all():
        raise ValueError(f"landmarks are {landmarks.tolist()}: expected five finite points (x, y)")
    matrix = fit_similarity(landmarks, torch.tensor(TEMPLATE, dtype=torch.float64))
    corners = picture_quad(TEMPLATE_SIZE, TEMPLATE_SIZE)
    return (corners - matrix[:, 2]) @ torch.linalg.inv(matrix[:, :2]).T


def recognition_crop(
    image: Tensor,  # [3, H, W], in [-1, 1]
    landmarks: Tensor,  # [5, 2] pixels
    *,
    size: int = TEMPLATE_SIZE,
) -> Tensor:
    """A face as recognisers take it; black where the picture ends.

    Args:
        image: The picture, in [-1, 1].
        landmarks: Left eye, right eye, nose, left and right corner of the mouth.
        size: Pixels of the crop, on each side; the template is scaled along.

    Returns:
        [3, size, size] in [-1, 1].

    Raises:
        ValueError: A shape is another one, the size is not positive, or the landmarks are one
            point.
    """
    if image.ndim != 3 or image.shape[0] != 3 or size < 1:
        raise ValueError(f"image is {tuple(image.shape)} and size {size}: expected [3, H, W], >= 1")
    image, quad = shrunk(image, recognition_quad(landmarks), size)
    return sample(image, quad, size)
