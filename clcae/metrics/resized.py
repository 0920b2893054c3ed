"""A metric at another size than that of the images, as published numbers are measured at 256.

The official scripts of pSp, e4e and CLCAE resize both files with Pillow's bilinear filter, cars to
192 x 256 or to a square. Deviation: values are not rounded to 256 levels after the resize, unless
the metric rounds them.
"""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from clcae.metrics.checks import check_images
from clcae.metrics.metric import Metric


class Resized(Metric):
    """Another metric, of both images brought to one size: bilinear, averaging where they shrink.

    Args:
        metric: What judges the resized images.
        size: Height and width in pixels.

    Raises:
        ValueError: If a side is not positive.
    """

    def __init__(self, *, metric: Metric, size: tuple[int, int] = (256, 256)) -> None:
        if min(size) < 1:
            raise ValueError(f"size is {size}: expected positive height and width")
        self.metric = metric
        self.size = size
        # Of the instance, where other metrics have them of their class.
        self.direction = metric.direction  # type: ignore[misc]
        self.range = metric.range  # type: ignore[misc]

    @property
    def protocol(self) -> Mapping[str, str]:
        """Everything that would change the value, in words."""
        height, width = self.size
        return {
            **self.metric.protocol,
            "measured at": f"{height} x {width}, both images resized, bilinear with antialiasing",
        }

    @property
    def num_counted(self) -> int:
        """Number of items that entered so far."""
        return self.metric.num_counted

    def update(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Take in images [N, 3, H, W] in [-1, 1] of any size; returns which count, [N] bool.

        Raises:
            ValueError: If shapes differ, or a value is NaN or outside the range.
        """
        check_images(outputs, targets)
        return self.metric.update(self._resize(outputs), self._resize(targets))

    def compute(self) -> float:
        """Value over everything taken in. Raises as the metric does."""
        return self.metric.compute()

    def state(self) -> dict[str, Any]:
        """The metric's."""
        return self.metric.state()

    def merge_state(self, state: Mapping[str, Any]) -> None:
        """Take in the `state` of a part."""
        self.metric.merge_state(state)

    def merge(self, other: "Resized") -> None:
        """Take in what another has taken in. Raises ValueError if it is of another protocol."""
        if type(self.metric) is not type(getattr(other, "metric", None)):
            raise ValueError(f"cannot merge {type(self.metric).__name__} with another metric")
        super().merge(other)

    def _resize(self, images: Tensor) -> Tensor:
        if tuple(images.shape[-2:]) == self.size:
            return images
        return F.interpolate(images, size=self.size, mode="bilinear", antialias=True)
