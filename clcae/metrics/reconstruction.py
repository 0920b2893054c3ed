"""Pixel metrics of reconstruction: MSE, PSNR and SSIM, one value per image.

SSIM: Wang et al., "Image quality assessment: from error visibility to structural similarity"
(2004). It is not invariant to a shift of the values, so it is taken on [0, 1]; and it depends on
its window, so the window has a name. `UNIFORM_21` is that of the official CLCAE measure
(scikit-image, window 21, sample covariance). Written out here because the window of torchmetrics
1.9 follows from sigma whatever size is asked for, and its mean includes mirrored borders.

Official scripts measure pictures saved as files: `quantise=True` rounds both images to 256 levels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clcae.images import from_uint8, to_uint8
from clcae.metrics.metric import Direction, MeanMetric

RANGE_TOLERANCE = 1e-3  # a half-precision network misses the ends of the range by so much
PSNR_CEILING = 100.0  # dB; identical images would have an infinite PSNR, and no mean with others


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


def mean_squared_error(
    outputs: Tensor,  # [N, 3, H, W], in [-1, 1]
    targets: Tensor,  # [N, 3, H, W], in [-1, 1]
) -> Tensor:
    """Mean squared difference of each pair of images, on the scale of [-1, 1].

    That is 4 times the value on [0, 1], and what the field prints as L2.

    Args:
        outputs: Images [N, 3, H, W] in [-1, 1].
        targets: Images of the same shape.

    Returns:
        [N], float64 in [0, 4].

    Raises:
        ValueError: If shapes differ, or a value is NaN or outside the range.
    """
    check_images(outputs, targets)
    return (_exact(outputs) - _exact(targets)).square().mean(dim=(1, 2, 3))


def peak_signal_to_noise_ratio(
    outputs: Tensor,  # [N, 3, H, W], in [-1, 1]
    targets: Tensor,  # [N, 3, H, W], in [-1, 1]
) -> Tensor:
    """PSNR of each pair of images in dB, at most `PSNR_CEILING`.

    Args:
        outputs: Images [N, 3, H, W] in [-1, 1]; the peak is the span of that range.
        targets: Images of the same shape.

    Returns:
        [N], float64 in [0, 100] dB.

    Raises:
        ValueError: If shapes differ, or a value is NaN or outside the range.
    """
    on_unit_scale = mean_squared_error(outputs, targets) / 4
    return (-10 * on_unit_scale.log10()).clamp(0, PSNR_CEILING)


def structural_similarity(
    outputs: Tensor,  # [N, 3, H, W], in [-1, 1]
    targets: Tensor,  # [N, 3, H, W], in [-1, 1]
    *,
    window: SsimWindow = GAUSSIAN_7,
) -> Tensor:
    """SSIM of each pair of images, the mean over channels and over windows wholly inside.

    Equation 13 of Wang et al. 2004 with K1 = 0.01 and K2 = 0.03, on images brought to [0, 1].

    Args:
        outputs: Images [N, 3, H, W] in [-1, 1].
        targets: Images of the same shape.
        window: Neighbourhood of the local statistics.

    Returns:
        [N], float64 in [-1, 1].

    Raises:
        ValueError: If shapes differ, a value is NaN or outside the range, or an image is smaller
            than the window.
    """
    check_images(outputs, targets)
    if min(outputs.shape[-2:]) < window.size:
        raise ValueError(
            f"images are {tuple(outputs.shape[-2:])}, smaller than the {window.size} window"
        )
    x, y = (_exact(outputs) + 1) / 2, (_exact(targets) + 1) / 2
    weights = _window_weights(window).to(x)
    mean_x, mean_y = _blur(x, weights), _blur(y, weights)
    correction = 1.0 if window.sigma is not None else window.size**2 / (window.size**2 - 1)
    variance_x = (_blur(x * x, weights) - mean_x**2) * correction
    variance_y = (_blur(y * y, weights) - mean_y**2) * correction
    covariance = (_blur(x * y, weights) - mean_x * mean_y) * correction
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * structure).mean(dim=(1, 2, 3))


class _PixelMetric(MeanMetric):
    """Mean over images of a pixel metric.

    Args:
        quantise: Round both images to 256 levels first, as if they had been saved.
    """

    def __init__(self, *, quantise: bool = False) -> None:
        super().__init__()
        self.quantise = quantise

    @property
    def protocol(self) -> Mapping[str, str]:
        """Everything that would change the value, in words."""
        return {"levels": "uint8" if self.quantise else "continuous"}

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Value of each pair of images, [N]."""
        check_images(outputs, targets)
        if self.quantise:
            outputs, targets = from_uint8(to_uint8(outputs)), from_uint8(to_uint8(targets))
        return self._pixel_values(outputs, targets)

    def _pixel_values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        raise NotImplementedError


class MeanSquaredError(_PixelMetric):
    """Mean over images of `mean_squared_error`."""

    direction: ClassVar[Direction] = "lower"
    range: ClassVar[tuple[float, float]] = (0.0, 4.0)

    @property
    def protocol(self) -> Mapping[str, str]:
        """Everything that would change the value, in words."""
        return {**super().protocol, "scale": "[-1, 1]"}

    def _pixel_values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return mean_squared_error(outputs, targets)


class PeakSignalToNoiseRatio(_PixelMetric):
    """Mean over images of `peak_signal_to_noise_ratio`."""

    direction: ClassVar[Direction] = "higher"
    range: ClassVar[tuple[float, float]] = (0.0, PSNR_CEILING)

    @property
    def protocol(self) -> Mapping[str, str]:
        """Everything that would change the value, in words."""
        return {
            **super().protocol,
            "scale": "[0, 1]",
            "unit": "dB",
            "averaging": f"mean of the images' PSNR, identical images {PSNR_CEILING:g} dB",
        }

    def _pixel_values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return peak_signal_to_noise_ratio(outputs, targets)


class StructuralSimilarity(_PixelMetric):
    """Mean over images of `structural_similarity`.

    Args:
        quantise: Round both images to 256 levels first, as if they had been saved.
        window: Neighbourhood of the local statistics.
    """

    direction: ClassVar[Direction] = "higher"
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def __init__(self, *, quantise: bool = False, window: SsimWindow = GAUSSIAN_7) -> None:
        super().__init__(quantise=quantise)
        self.window = window

    @property
    def protocol(self) -> Mapping[str, str]:
        """Everything that would change the value, in words."""
        return {
            **super().protocol,
            "scale": "[0, 1]",
            "window": str(self.window),
            "colour": "mean of the RGB channels",
            "border": "windows wholly inside the image",
        }

    def _pixel_values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return structural_similarity(outputs, targets, window=self.window)


def check_images(outputs: Tensor, targets: Tensor) -> None:
    """Refuse images that are not what a metric takes them for.

    Args:
        outputs: Images [N, 3, H, W] in [-1, 1].
        targets: Images of the same shape.

    Raises:
        ValueError: If shapes differ, or a value is NaN or beyond [-1, 1] by more than
            `RANGE_TOLERANCE`.
    """
    if outputs.shape != targets.shape or outputs.ndim != 4:
        raise ValueError(
            f"outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}: "
            "expected one shape [N, 3, H, W]"
        )
    for name, images in (("outputs", outputs), ("targets", targets)):
        if len(images) == 0:
            continue
        # NaN makes both ends NaN, and the comparison below fails as it should.
        low, high = images.min().item(), images.max().item()
        if not (low >= -1 - RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE):
            raise ValueError(f"{name} lie in [{low:.4g}, {high:.4g}]: expected [-1, 1] without NaN")


def _exact(images: Tensor) -> Tensor:
    """Images as float64, on their own device if it has that type (Apple's has not)."""
    images = images.detach()
    return (images.cpu() if images.device.type == "mps" else images).double()


def _window_weights(window: SsimWindow) -> Tensor:
    """Weights [size] along one side of the window, with sum 1."""
    if window.sigma is None:
        weights = torch.ones(window.size, dtype=torch.float64)
    else:
        offsets = torch.arange(window.size, dtype=torch.float64) - window.size // 2
        weights = torch.exp(-offsets.square() / (2 * window.sigma**2))
    return weights / weights.sum()


def _blur(images: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of every window wholly inside, [N, C, H - size + 1, W - size + 1]."""
    channels = images.shape[1]
    rows = weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    columns = weights.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    return F.conv2d(F.conv2d(images, rows, groups=channels), columns, groups=channels)
