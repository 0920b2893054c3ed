"""The windows of SSIM and the two local factors that it multiplies.

Wang et al., "Image quality assessment: from error visibility to structural similarity" (2004). SSIM
depends on its window, so the window has a name. `UNIFORM_21` is that of the official CLCAE measure
(scikit-image, window 21, sample covariance).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SsimWindow:
    """Neighbourhood over which SSIM takes its local statistics.

    Args:
        size: Side of the window in pixels, odd.
        sigma: Standard deviation of a Gaussian weighting in pixels; None weights uniformly and
            takes unbiased (sample) covariances, as scikit-image does by default.
    """

    size: int
    sigma: float | None

    def __post_init__(self) -> None:
        if self.size < 3 or self.size % 2 == 0:
            raise ValueError(f"window size is {self.size}: expected an odd number, 3 or more")
        if self.sigma is not None and self.sigma <= 0:
            raise ValueError(f"sigma is {self.sigma}: expected a positive number")

    def __str__(self) -> str:
        if self.sigma is None:
            return f"uniform {self.size}x{self.size}, sample covariance"
        return f"gaussian {self.size}x{self.size}, sigma {self.sigma}"


GAUSSIAN_7 = SsimWindow(size=7, sigma=1.5)  # for small images, where 11 loses much of the border
GAUSSIAN_11 = SsimWindow(size=11, sigma=1.5)  # Wang et al. 2004
UNIFORM_21 = SsimWindow(size=21, sigma=None)  # official CLCAE


def similarity_maps(
    x: Tensor,  # [N, C, H, W]
    y: Tensor,  # [N, C, H, W]
    *,
    weights: Tensor,  # [size]
    span: float | Tensor,
    correction: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The two factors of SSIM at every window wholly inside: luminance, and the rest.

    Equation 6 of Wang et al. 2004, and 9 (contrast) joined with 10 (structure) as in 13; K1 = 0.01,
    K2 = 0.03.

    Args:
        x: Images [N, C, H, W] at any scale, float64.
        y: Images of the same shape.
        weights: Of the window along one side, as of `window_weights`.
        span: What lies between the least and the greatest value, of all or [N, 1, 1, 1].
        correction: Factor on variances and covariances.

    Returns:
        Two maps [N, C, H - size + 1, W - size + 1].
    """
    mean_x, mean_y = _blur(x, weights), _blur(y, weights)
    variance_x = (_blur(x * x, weights) - mean_x**2) * correction
    variance_y = (_blur(y * y, weights) - mean_y**2) * correction
    covariance = (_blur(x * y, weights) - mean_x * mean_y) * correction
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return luminance, structure


def window_weights(window: SsimWindow) -> Tensor:
    """Weights [size] along one side of the window, with sum 1."""
    if window.sigma is None:
        return torch.full((window.size,), 1 / window.size, dtype=torch.float64)
    return gaussian_weights(size=window.size, sigma=window.sigma)


def gaussian_weights(*, size: int, sigma: float) -> Tensor:
    """Weights [size] of a Gaussian about element size // 2, with sum 1."""
    offsets = torch.arange(size, dtype=torch.float64) - size // 2
    weights = torch.exp(-offsets.square() / (2 * sigma**2))
    return weights / weights.sum()


def _blur(images: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of every window wholly inside, [N, C, H - size + 1, W - size + 1].

    A sum of shifted images, ten times as fast in float64 as a convolution of each channel.
    """
    for dim in (2, 3):
        length = images.shape[dim] - len(weights) + 1
        total = torch.zeros_like(images.narrow(dim, 0, length))
        for offset, weight in enumerate(weights.tolist()):
            total.add_(images.narrow(dim, offset, length), alpha=weight)
        images = total
    return images
