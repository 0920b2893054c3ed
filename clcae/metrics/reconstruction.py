"""Pixel metrics of reconstruction: MSE, PSNR and SSIM, one value per image.

SSIM: Wang et al., "Image quality assessment: from error visibility to structural similarity"
(2004). It is not invariant to a shift of the values, so it is taken on [0, 1]. Written out here
because the window of torchmetrics 1.9 follows from sigma whatever size is asked for, and its mean
includes mirrored borders.

Official scripts measure pictures saved as files: `quantise=True` rounds both images to 256 levels.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from clcae.images import from_uint8, to_uint8
from clcae.metrics.checks import check_images, exact
from clcae.metrics.metric import Direction, MeanMetric
from clcae.metrics.windows import (
    GAUSSIAN_7,
    GAUSSIAN_11,
    UNIFORM_21,
    SsimWindow,
    similarity_maps,
    window_weights,
)

__all__ = [
    "GAUSSIAN_7",
    "GAUSSIAN_11",
    "UNIFORM_21",
    "MeanSquaredError",
    "PeakSignalToNoiseRatio",
    "PixelMetric",
    "SsimWindow",
    "StructuralSimilarity",
    "mean_squared_error",
    "peak_signal_to_noise_ratio",
    "structural_similarity",
]

PSNR_CEILING = 100.0  # dB; identical images would have an infinite PSNR, and no mean with others


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
    return (exact(outputs) - exact(targets)).square().mean(dim=(1, 2, 3))


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
    x, y = (exact(outputs) + 1) / 2, (exact(targets) + 1) / 2
    correction = 1.0 if window.sigma is not None else window.size**2 / (window.size**2 - 1)
    luminance, structure = similarity_maps(
        x, y, weights=window_weights(window), span=1.0, correction=correction
    )
    return (luminance * structure).mean(dim=(1, 2, 3))


class PixelMetric(MeanMetric):
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
        return self.pixel_values(outputs, targets)

    @abstractmethod
    def pixel_values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Value of each pair of images, [N], of images that were checked and rounded."""


class MeanSquaredError(PixelMetric):
    """Mean over images of `mean_squared_error`."""

    direction: ClassVar[Direction] = "lower"
    range: ClassVar[tuple[float, float]] = (0.0, 4.0)

    @property
    def protocol(self) -> Mapping[str, str]:
        """Everything that would change the value, in words."""
        return {**super().protocol, "scale": "[-1, 1]"}

    def pixel_values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return mean_squared_error(outputs, targets)


class PeakSignalToNoiseRatio(PixelMetric):
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

    def pixel_values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return peak_signal_to_noise_ratio(outputs, targets)


class StructuralSimilarity(PixelMetric):
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

    def pixel_values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return structural_similarity(outputs, targets, window=self.window)
