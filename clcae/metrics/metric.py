"""Base classes of metrics: accumulators with a range, a direction and a protocol.

A number can be compared only under its protocol, so a metric carries it: range, resize, window,
network, whatever would change the value. Values are float64 on the CPU, whatever the device and
type of the images, and parts merge into the whole.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

Direction = Literal["higher", "lower", ""]  # "": neither is better

RANGE_TOLERANCE = 1e-3  # a half-precision network misses the ends of the range by so much


class Metric(ABC):
    """Accumulates one number over many pairs of outputs and targets.

    Class attributes:
        direction: whether "higher" or "lower" is better; "" where neither is.
        range: least and greatest value possible.
    """

    direction: ClassVar[Direction]
    range: ClassVar[tuple[float, float]]

    @property
    @abstractmethod
    def protocol(self) -> Mapping[str, str]:
        """Describes in words every setting that affects the value."""

    @property
    @abstractmethod
    def num_counted(self) -> int:
        """Counts the items that entered so far."""

    @abstractmethod
    def update(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Accumulates a batch of what is judged, [N, ...], and what it is compared with.

        Returns [N] bool, False for items that could not be judged and do not count.
        """

    @abstractmethod
    def compute(self) -> float:
        """Computes the value over all that came in. Raises ValueError if that is too little."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Returns what was accumulated: small, without networks, fit for another process."""

    @abstractmethod
    def merge_state(self, state: Mapping[str, Any]) -> None:
        """Merges the `state` of a part; sender and receiver must be of one protocol."""


class LabelledMetric(Metric):
    """A metric that reads a label of every item beside the pair of pictures."""

    @abstractmethod
    def update_labelled(self, outputs: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
        """Accumulates a batch with its labels [N]; returns [N] bool as `update`."""


class MeanMetric(Metric):
    """Averages a value that each item has by itself; subclasses define the value.

    The values are kept, 8 bytes an item, and summed exactly: the mean does not depend on batches,
    on their order or on how parts were merged, to the last digit. An item whose value is NaN could
    not be judged: it does not count, and `update` says so.
    """

    def __init__(self) -> None:
        self._values: list[float] = []

    @abstractmethod
    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Computes the value of each item, [N]; NaN where there is none."""

    @property
    def num_counted(self) -> int:
        return len(self._values)

    @torch.no_grad()
    def update(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Accumulates a batch: [N] bool, what counts. Raises ValueError if a value is infinite."""
        values = self.values(outputs, targets).detach().cpu().double()
        if values.isinf().any():
            raise ValueError(f"{type(self).__name__} gave an infinite value")
        counted = ~values.isnan()
        self._values += values[counted].tolist()
        return counted

    def compute(self) -> float:
        if not self._values:
            raise ValueError(f"{type(self).__name__} has nothing to average")
        return math.fsum(self._values) / len(self._values)

    def state(self) -> dict[str, Any]:
        return {"values": list(self._values)}

    def merge_state(self, state: Mapping[str, Any]) -> None:
        self._values += state["values"]


def check_images(
    outputs: Tensor,  # [N, 3, H, W], in [-1, 1]
    targets: Tensor,  # [N, 3, H, W], in [-1, 1]
) -> None:
    """Checks shape, type and range of a pair of image batches.

    Raises:
        ValueError: if shapes differ, or a value is NaN or beyond [-1, 1] by more than
            `RANGE_TOLERANCE`. Images in [0, 1] cannot be told from bright ones.
    """
    if outputs.shape != targets.shape or not _are_images(outputs):
        raise ValueError(
            f"outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}: "
            "expected one shape [N, 3, H, W]"
        )
    _check_range(outputs, name="outputs")
    _check_range(targets, name="targets")


def check_image_set(images: Tensor) -> None:
    """Checks one batch of images as `check_images` does a pair. Raises ValueError."""
    if not _are_images(images):
        raise ValueError(f"images are {tuple(images.shape)}: expected [N, 3, H, W]")
    _check_range(images, name="images")


def exact(images: Tensor) -> Tensor:
    """Converts images to float64, on their own device if it has that type (Apple's has not)."""
    images = images.detach()
    return (images.cpu() if images.device.type == "mps" else images).double()


def _are_images(images: Tensor) -> bool:
    return images.ndim == 4 and images.shape[1] == 3 and min(images.shape[-2:]) > 0


def _check_range(images: Tensor, *, name: str) -> None:
    if not images.is_floating_point():
        raise ValueError(f"{name} are {images.dtype}: expected floating point in [-1, 1]")
    if images.numel() == 0:
        return
    # NaN makes both ends NaN, and the comparison below fails as it should.
    low, high = images.min().item(), images.max().item()
    if not (low >= -1 - RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE):
        raise ValueError(f"{name} lie in [{low:.4g}, {high:.4g}]: expected [-1, 1] without NaN")
