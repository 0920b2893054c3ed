"""The crop of face recognition networks: 112 pixels, by five landmarks.

Deng et al. 2019 (ArcFace), section 4.1; the template is that of insightface (`arcface_src`), the
fit Umeyama 1991 (Least-squares estimation of transformation parameters between two point patterns).
Deviation: resampling has antialiasing where the official one is bilinear; a large face is smoother.
"""

import torch
from torch import Tensor

from clcae.faces.crop import check_image, checked_landmarks, picture_quad, sample, shrunk

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
    """Fits rotation, scale and shift from points to targets by least squares, never mirroring.

    Returns:
        [2, 3], float64 on the CPU: targets are about `matrix[:, :2] @ point + matrix[:, 2]`.

    Raises:
        ValueError: if shapes differ, there are fewer than two points, or all points are one.
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
    """Computes the quad [4, 2] of the 112-pixel crop in the picture.

    Raises:
        ValueError: if the landmarks are no five finite points, or all are one.
    """
    template = torch.tensor(TEMPLATE, dtype=torch.float64)
    matrix = fit_similarity(checked_landmarks(landmarks), template)
    corners = picture_quad(TEMPLATE_SIZE, TEMPLATE_SIZE)
    return (corners - matrix[:, 2]) @ torch.linalg.inv(matrix[:, :2]).T


def recognition_crop(
    image: Tensor,  # [3, H, W], in [-1, 1]
    landmarks: Tensor,  # [5, 2] pixels
    *,
    size: int = TEMPLATE_SIZE,
) -> Tensor:
    """Warps a face to the template scaled to `size`: [3, size, size], black outside the picture.

    Raises:
        ValueError: if a shape or the size is wrong, or the landmarks are one point.
    """
    check_image(image, size)
    image, quad = shrunk(image, recognition_quad(landmarks), size)
    return sample(image, quad, size)
