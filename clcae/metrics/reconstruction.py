"""Distances between a reconstruction and its image, one value per image: MSE, PSNR, perceptual.

LPIPS (Zhang et al. 2018) is one perceptual distance; it takes images in [-1, 1], and feeding it
[0, 1] is a common error of published numbers. SSIM is in `clcae.metrics.ssim`.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from clcae.metrics.metric import MeanMetric, check_images, exact

PSNR_CEILING = 100.0  # dB; identical images would have an infinite PSNR, and no mean with others

Distance = Callable[[Tensor, Tensor], Tensor]


def mean_squared_error(
    outputs: Tensor,  # [N, 3, H, W], in [-1, 1]
    targets: Tensor,  # [N, 3, H, W], in [-1, 1]
) -> Tensor:
    """Computes the mean squared difference of each pair of images: [N], float64 in [0, 4].

    That is 4 times the value on [0, 1], and what the field prints as L2.

    Raises:
        ValueError: if shapes differ, or a value is NaN or outside the range.
    """
    check_images(outputs, targets)
    return (exact(outputs) - exact(targets)).square().mean(dim=(1, 2, 3))


def peak_signal_to_noise_ratio(
    outputs: Tensor,  # [N, 3, H, W], in [-1, 1]
    targets: Tensor,  # [N, 3, H, W], in [-1, 1]
) -> Tensor:
    """Computes the PSNR of each pair: [N], float64 in [0, `PSNR_CEILING`] dB; the peak is 2.

    Raises:
        ValueError: if shapes differ, or a value is NaN or outside the range.
    """
    on_unit_scale = mean_squared_error(outputs, targets) / 4
    return (-10 * on_unit_scale.log10()).clamp(0, PSNR_CEILING)


class MeanSquaredError(MeanMetric):
    """Averages `mean_squared_error` over images."""

    direction = "lower"
    range = (0.0, 4.0)

    @property
    def protocol(self) -> Mapping[str, str]:
        return {"levels": "continuous", "scale": "[-1, 1]"}

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return mean_squared_error(outputs, targets)


class PeakSignalToNoiseRatio(MeanMetric):
    """Averages `peak_signal_to_noise_ratio` over images."""

    direction = "higher"
    range = (0.0, PSNR_CEILING)

    @property
    def protocol(self) -> Mapping[str, str]:
        return {
            "levels": "continuous",
            "scale": "[0, 1]",
            "unit": "dB",
            "averaging": f"mean of the images' PSNR, identical images {PSNR_CEILING:g} dB",
        }

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return peak_signal_to_noise_ratio(outputs, targets)


class PerceptualDistance(MeanMetric):
    """Averages over images a distance between network features of output and target.

    Args:
        distance: two batches [N, 3, H, W] in [-1, 1] to N distances, of any shape that holds one
            per image, as [N, 1, 1, 1].
        distance_name: network, version and resize in words, for the protocol.
    """

    direction = "lower"
    range = (0.0, float("inf"))

    def __init__(self, *, distance: Distance, distance_name: str) -> None:
        super().__init__()
        self.distance = distance
        self.distance_name = distance_name

    @property
    def protocol(self) -> Mapping[str, str]:
        return {"network": self.distance_name, "input": "[-1, 1]"}

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Computes the distance of each pair of images, [N].

        Raises:
            ValueError: if the images are not in the range, or the distance gives another number
                of values, or one that is not finite.
        """
        check_images(outputs, targets)
        distances = self.distance(outputs, targets)
        if distances.numel() != len(outputs) or not distances.isfinite().all():
            raise ValueError(
                f"{self.distance_name} gave {tuple(distances.shape)} for {len(outputs)} images: "
                "expected one finite distance per image"
            )
        return distances.reshape(-1)
