"""SSIM, and MS-SSIM in the two forms that published tables hold.

Wang et al., "Image quality assessment: from error visibility to structural similarity" (2004), and
Wang, Simoncelli and Bovik, "Multi-scale structural similarity for image quality assessment" (2003).

SSIM is not invariant to a shift of the values, so it is taken on [0, 1], and it depends on its
window, so the window has a name. Written out here because the window of torchmetrics 1.9 follows
from sigma whatever size is asked for, and its mean includes mirrored borders.

The field's MS-SSIM come from two codes that disagree (e4e's faces: .72 and .625), so both are here
by name: `multiscale_similarity` is the paper's, on [0, 1], as piq computes it (SFE);
`ported_multiscale_similarity` is `criteria/ms_ssim.py` of HyperStyle and StyleRes, a port of
pytorch-msssim that reads [-1, 1] as it is. Deviation of both: a factor below 0 counts as 0, where
the port gives NaN.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from clcae.metrics.metric import MeanMetric, check_images, exact


@dataclass(frozen=True)
class SsimWindow:
    """Neighbourhood over which SSIM takes its local statistics.

    Args:
        size: side of the window in pixels, odd.
        sigma: standard deviation of a Gaussian weighting in pixels; None weights uniformly and
            takes unbiased (sample) covariances, as scikit-image does by default.
    """

    size: int
    sigma: float | None

    def __str__(self) -> str:
        if self.sigma is None:
            return f"uniform {self.size}x{self.size}, sample covariance"
        return f"gaussian {self.size}x{self.size}, sigma {self.sigma}"


GAUSSIAN_7 = SsimWindow(size=7, sigma=1.5)  # for small images, where 11 loses much of the border
GAUSSIAN_11 = SsimWindow(size=11, sigma=1.5)  # Wang et al. 2004
UNIFORM_21 = SsimWindow(size=21, sigma=None)  # official CLCAE (scikit-image)

EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, finest first; section 3.2
SMALLEST = GAUSSIAN_11.size * 2 ** (len(EXPONENTS) - 1)  # pixels: one window at the last scale
SMALLEST_PORTED = 2 ** (len(EXPONENTS) - 1)  # pixels: one is left at the last scale


def structural_similarity(
    outputs: Tensor,  # [N, 3, H, W], in [-1, 1]
    targets: Tensor,  # [N, 3, H, W], in [-1, 1]
    *,
    window: SsimWindow = GAUSSIAN_7,
) -> Tensor:
    """Computes the SSIM of each pair of images brought to [0, 1]: [N], float64 in [-1, 1].

    Equation 13 of Wang et al. 2004, the mean over channels and over windows wholly inside.

    Raises:
        ValueError: if shapes differ, a value is NaN or outside the range, or an image is smaller
            than the window.
    """
    check_images(outputs, targets)
    if min(outputs.shape[-2:]) < window.size:
        raise ValueError(
            f"images are {tuple(outputs.shape[-2:])}, smaller than the {window.size} window"
        )
    x, y = (exact(outputs) + 1) / 2, (exact(targets) + 1) / 2
    correction = 1.0 if window.sigma is not None else window.size**2 / (window.size**2 - 1)
    luminance, structure = _similarity_maps(
        x, y, weights=_window_weights(window), span=1.0, correction=correction
    )
    return (luminance * structure).mean(dim=(1, 2, 3))


def multiscale_similarity(
    outputs: Tensor,  # [N, 3, H, W], in [-1, 1]
    targets: Tensor,  # [N, 3, H, W], in [-1, 1]
) -> Tensor:
    """Computes the MS-SSIM of each pair of images brought to [0, 1]: [N], float64 in [0, 1].

    Equation 7 of Wang et al. 2003, the mean over channels; between scales 2 x 2 pixels are
    averaged, and an odd last row or column falls away (piq repeats the first one instead).

    Raises:
        ValueError: if shapes differ, a value is NaN or outside the range, or a side is shorter
            than 176 pixels.
    """
    _check_pairs(outputs, targets, SMALLEST)
    x, y = (exact(outputs) + 1) / 2, (exact(targets) + 1) / 2
    return _product_over_scales(x, y, span=1.0, averaged=(2, 3)).mean(dim=1)


def ported_multiscale_similarity(
    outputs: Tensor,  # [N, 3, H, W], in [-1, 1]
    targets: Tensor,  # [N, 3, H, W], in [-1, 1]
) -> Tensor:
    """Computes the MS-SSIM of each pair of images as the papers' port does for one pair at a time.

    It differs from `multiscale_similarity` in four ways: images are not shifted to [0, 1], though
    SSIM depends on it; their span is 2 where the output (the port's first picture) has a value
    below -0.5, and 1 where it has none; the channels are averaged before the factors of the scales
    are multiplied; and where an image is smaller than the window, the window shrinks to it. The
    papers compare at 256. The result is [N], float64 in [0, 1].

    Raises:
        ValueError: if shapes differ, a value is NaN or outside the range, or a side is shorter
            than 16 pixels.
    """
    _check_pairs(outputs, targets, SMALLEST_PORTED)
    x, y = exact(outputs), exact(targets)
    span = torch.where(x.amin(dim=(1, 2, 3), keepdim=True) < -0.5, 2.0, 1.0).to(x)
    return _product_over_scales(x, y, span=span, averaged=(1, 2, 3))


class StructuralSimilarity(MeanMetric):
    """Averages `structural_similarity` over images."""

    direction = "higher"
    range = (-1.0, 1.0)

    def __init__(self, *, window: SsimWindow = GAUSSIAN_7) -> None:
        super().__init__()
        self.window = window

    @property
    def protocol(self) -> Mapping[str, str]:
        return {
            "levels": "continuous",
            "scale": "[0, 1]",
            "window": str(self.window),
            "colour": "mean of the RGB channels",
            "border": "windows wholly inside the image",
        }

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return structural_similarity(outputs, targets, window=self.window)


class MultiscaleSimilarity(MeanMetric):
    """Averages `multiscale_similarity` over images."""

    direction = "higher"
    range = (0.0, 1.0)

    @property
    def protocol(self) -> Mapping[str, str]:
        return {
            "levels": "continuous",
            "form": "Wang et al. 2003, 5 scales, as piq",
            "scale": "[0, 1], data range 1",
            "window": str(GAUSSIAN_11),
            "colour": "mean of the RGB channels' values",
        }

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return multiscale_similarity(outputs, targets)


class PortedMultiscaleSimilarity(MeanMetric):
    """Averages `ported_multiscale_similarity` over images; comparable at 256 pixels only."""

    direction = "higher"
    range = (0.0, 1.0)

    @property
    def protocol(self) -> Mapping[str, str]:
        return {
            "levels": "continuous",
            "form": "criteria/ms_ssim.py of HyperStyle and StyleRes, 5 scales",
            "scale": "[-1, 1] as it is, data range 2, or 1 for outputs without a value below -0.5",
            "window": f"{GAUSSIAN_11}, or the image where that is smaller",
            "colour": "RGB channels averaged at every scale",
        }

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return ported_multiscale_similarity(outputs, targets)


def _product_over_scales(
    x: Tensor,  # [N, 3, H, W], float64
    y: Tensor,  # [N, 3, H, W]
    *,
    span: float | Tensor,
    averaged: tuple[int, ...],  # the axes over which a factor is the mean
) -> Tensor:
    """Multiplies the factors of five scales, each to its exponent."""
    factors = []
    for scale, exponent in enumerate(EXPONENTS):
        if scale > 0:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        weights = _gaussian_weights(size=min(GAUSSIAN_11.size, *x.shape[-2:]), sigma=1.5)
        luminance, structure = _similarity_maps(x, y, weights=weights, span=span)
        last = scale == len(EXPONENTS) - 1
        factor = (luminance * structure if last else structure).mean(dim=averaged)
        factors.append(factor.clamp(min=0) ** exponent)
    return torch.stack(factors).prod(dim=0)


def _similarity_maps(
    x: Tensor,  # [N, C, H, W] at any scale, float64
    y: Tensor,  # [N, C, H, W]
    *,
    weights: Tensor,  # [size] of the window along one side
    span: float | Tensor,  # greatest minus least value, of all or [N, 1, 1, 1]
    correction: float = 1.0,  # factor on variances and covariances
) -> tuple[Tensor, Tensor]:
    """Computes the luminance factor of SSIM and the rest at every window wholly inside.

    Equation 6 of Wang et al. 2004, and 9 (contrast) joined with 10 (structure) as in 13; K1 = 0.01,
    K2 = 0.03. Both maps are [N, C, H - size + 1, W - size + 1].
    """
    mean_x, mean_y = _blur(x, weights), _blur(y, weights)
    variance_x = (_blur(x * x, weights) - mean_x**2) * correction
    variance_y = (_blur(y * y, weights) - mean_y**2) * correction
    covariance = (_blur(x * y, weights) - mean_x * mean_y) * correction
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return luminance, structure


def _window_weights(window: SsimWindow) -> Tensor:
    if window.sigma is None:
        return torch.full((window.size,), 1 / window.size, dtype=torch.float64)
    return _gaussian_weights(size=window.size, sigma=window.sigma)


def _gaussian_weights(*, size: int, sigma: float) -> Tensor:
    """Returns the weights [size] of a Gaussian about element size // 2, with sum 1."""
    offsets = torch.arange(size, dtype=torch.float64) - size // 2
    weights = torch.exp(-offsets.square() / (2 * sigma**2))
    return weights / weights.sum()


def _blur(images: Tensor, weights: Tensor) -> Tensor:
    """Averages every window wholly inside, [N, C, H - size + 1, W - size + 1].

    A sum of shifted images, ten times as fast in float64 as a convolution of each channel.
    """
    for dim in (2, 3):
        length = images.shape[dim] - len(weights) + 1
        total = torch.zeros_like(images.narrow(dim, 0, length))
        for offset, weight in enumerate(weights.tolist()):
            total.add_(images.narrow(dim, offset, length), alpha=weight)
        images = total
    return images


def _check_pairs(outputs: Tensor, targets: Tensor, smallest: int) -> None:
    check_images(outputs, targets)
    if min(outputs.shape[-2:]) < smallest:
        raise ValueError(
            f"images are {tuple(outputs.shape[-2:])}: MS-SSIM over {len(EXPONENTS)} scales needs "
            f"{smallest} pixels or more"
        )
