"""MS-SSIM: SSIM over five scales, in the two forms that published tables hold.

Wang, Simoncelli and Bovik, "Multi-scale structural similarity for image quality assessment" (2003).
The field's numbers come from two codes that disagree (e4e's faces: .72 and .625), so both are
here by name: `multiscale_similarity` is the paper's, on [0, 1], as piq computes it (SFE);
`ported_multiscale_similarity` is `criteria/ms_ssim.py` of HyperStyle and StyleRes, a port of
pytorch-msssim that reads [-1, 1] as it is. Deviation of both: a factor below 0 counts as 0, where
the port gives NaN.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clcae.metrics.checks import check_images, exact
from clcae.metrics.metric import Direction
from clcae.metrics.reconstruction import PixelMetric
from clcae.metrics.windows import SsimWindow, gaussian_weights, similarity_maps, window_weights

EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, finest first; section 3.2
WINDOW = SsimWindow(size=11, sigma=1.5)
SMALLEST = WINDOW.size * 2 ** (len(EXPONENTS) - 1)  # pixels: one window at the last scale
SMALLEST_PORTED = 2 ** (len(EXPONENTS) - 1)  # pixels: one is left at the last scale


def multiscale_similarity(
    outputs: Tensor,  # [N, 3, H, W], in [-1, 1]
    targets: Tensor,  # [N, 3, H, W], in [-1, 1]
) -> Tensor:
    """MS-SSIM of each pair of images brought to [0, 1], the mean over the channels' values.

    Equation 7 of the paper; between scales 2 x 2 pixels are averaged, and an odd last row or
    column falls away (piq repeats the first one instead).

    Args:
        outputs: Images [N, 3, H, W] in [-1, 1].
        targets: Images of the same shape.

    Returns:
        [N], float64 in [0, 1].

    Raises:
        ValueError: If shapes differ, a value is NaN or outside the range, or a side is shorter
            than 176 pixels.
    """
    check_images(outputs, targets)
    _check_size(outputs, SMALLEST)
    x, y = (exact(outputs) + 1) / 2, (exact(targets) + 1) / 2
    weights, factors = window_weights(WINDOW), []
    for scale, exponent in enumerate(EXPONENTS):
        if scale > 0:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        luminance, structure = similarity_maps(x, y, weights=weights, span=1.0)
        last = scale == len(EXPONENTS) - 1
        factor = (luminance * structure if last else structure).mean(dim=(2, 3))  # [N, 3]
        factors.append(factor.clamp(min=0) ** exponent)
    return torch.stack(factors).prod(dim=0).mean(dim=1)


def ported_multiscale_similarity(
    outputs: Tensor,  # [N, 3, H, W], in [-1, 1]
    targets: Tensor,  # [N, 3, H, W], in [-1, 1]
) -> Tensor:
    """MS-SSIM of each pair of images as the papers' port computes it, one pair at a time.

    It differs from `multiscale_similarity` in four ways: images are not shifted to [0, 1], though
    SSIM depends on it; their span is 2 where the output (the port's first picture) has a value
    below -0.5, and 1 where it has none; the channels are averaged before the factors of the scales
    are multiplied; and where an image is smaller than the window, the window shrinks to it. The
    papers compare at 256.

    Args:
        outputs: Images [N, 3, H, W] in [-1, 1].
        targets: Images of the same shape.

    Returns:
        [N], float64 in [0, 1].

    Raises:
        ValueError: If shapes differ, a value is NaN or outside the range, or a side is shorter
            than 16 pixels.
    """
    check_images(outputs, targets)
    _check_size(outputs, SMALLEST_PORTED)
    x, y = exact(outputs), exact(targets)
    span = torch.where(x.amin(dim=(1, 2, 3), keepdim=True) < -0.5, 2.0, 1.0).to(x)
    factors = []
    for scale, exponent in enumerate(EXPONENTS):
        if scale > 0:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        weights = gaussian_weights(size=min(WINDOW.size, *x.shape[-2:]), sigma=1.5)
        luminance, structure = similarity_maps(x, y, weights=weights, span=span)
        last = scale == len(EXPONENTS) - 1
        factor = (luminance * structure if last else structure).mean(dim=(1, 2, 3))  # [N]
        factors.append(factor.clamp(min=0) ** exponent)
    return torch.stack(factors).prod(dim=0)


class MultiscaleSimilarity(PixelMetric):
    """Mean over images of `multiscale_similarity`."""

    direction: ClassVar[Direction] = "higher"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    @property
    def protocol(self) -> Mapping[str, str]:
        """Everything that would change the value, in words."""
        return {
            **super().protocol,
            "form": "Wang et al. 2003, 5 scales, as piq",
            "scale": "[0, 1], data range 1",
            "window": str(WINDOW),
            "colour": "mean of the RGB channels' values",
        }

    def pixel_values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return multiscale_similarity(outputs, targets)


class PortedMultiscaleSimilarity(PixelMetric):
    """Mean over images of `ported_multiscale_similarity`; comparable at 256 pixels only."""

    direction: ClassVar[Direction] = "higher"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    @property
    def protocol(self) -> Mapping[str, str]:
        """Everything that would change the value, in words."""
        return {
            **super().protocol,
            "form": "criteria/ms_ssim.py of HyperStyle and StyleRes, 5 scales",
            "scale": "[-1, 1] as it is, data range 2, or 1 for outputs without a value below -0.5",
            "window": f"{WINDOW}, or the image where that is smaller",
            "colour": "RGB channels averaged at every scale",
        }

    def pixel_values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return ported_multiscale_similarity(outputs, targets)


def _check_size(images: Tensor, smallest: int) -> None:
    if min(images.shape[-2:]) < smallest:
        raise ValueError(
            f"images are {tuple(images.shape[-2:])}: MS-SSIM over {len(EXPONENTS)} scales needs "
            f"{smallest} pixels or more"
        )
