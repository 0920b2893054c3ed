"""Perceptual distance: the mean over images of a distance between network features.

LPIPS (Zhang et al. 2018) is one such distance; it takes images in [-1, 1], and feeding it [0, 1]
is a common error of published numbers.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import Tensor

from clcae.metrics.checks import check_images
from clcae.metrics.metric import Direction, MeanMetric

Distance = Callable[[Tensor, Tensor], Tensor]


class PerceptualDistance(MeanMetric):
    """Mean over images of a distance between output and target.

    Args:
        distance: Two batches [N, 3, H, W] in [-1, 1] to N distances, of any shape that holds one
            per image, as [N, 1, 1, 1].
        distance_name: Network, version and resize in words, for the protocol.
    """

    direction: ClassVar[Direction] = "lower"
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))

    def __init__(self, *, distance: Distance, distance_name: str) -> None:
        super().__init__()
        self.distance = distance
        self.distance_name = distance_name

    @property
    def protocol(self) -> Mapping[str, str]:
        """Everything that would change the value, in words."""
        return {"network": self.distance_name, "input": "[-1, 1]"}

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Distance of each pair of images, [N].

        Raises:
            ValueError: If the images are not in the range, or the distance gives another number
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
