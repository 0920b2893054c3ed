"""What every metric is: an accumulator with a range, a direction and a protocol.

A number can be compared only under its protocol, so a metric carries it: range, resize, window,
network, whatever would change the value. Values are float64 on the CPU, whatever the device and
type of the images, and parts merge into the whole.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

Direction = Literal["higher", "lower"]


class Metric(ABC):
    """One number over many pairs of outputs and targets.

    Class attributes:
        direction: Whether "higher" or "lower" is better.
        range: Least and greatest value possible.
    """

    direction: ClassVar[Direction]
    range: ClassVar[tuple[float, float]]

    @property
    @abstractmethod
    def protocol(self) -> Mapping[str, str]:
        """Everything that would change the value, in words."""

    @property
    @abstractmethod
    def num_counted(self) -> int:
        """Number of items that entered so far."""

    @abstractmethod
    def update(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Take in a batch.

        Args:
            outputs: What is judged, [N, ...].
            targets: What it is compared with, [N, ...].

        Returns:
            [N] bool, False for items that could not be judged and do not count.
        """

    @abstractmethod
    def compute(self) -> float:
        """Value over everything taken in, which is not changed by asking.

        Raises:
            ValueError: If too little was taken in for a value.
        """

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What was taken in: small, without networks, fit to be sent to another process."""

    @abstractmethod
    def merge_state(self, state: Mapping[str, Any]) -> None:
        """Take in the `state` of a part; sender and receiver must be of one protocol."""

    def merge(self, other: Self) -> None:
        """Take in what another accumulator has taken in, which is left as it is.

        Raises:
            ValueError: If the other metric is of another class or protocol.
        """
        if type(self) is not type(other) or self.protocol != other.protocol:
            raise ValueError(
                f"cannot merge {type(self).__name__} {dict(self.protocol)} with "
                f"{type(other).__name__} {dict(other.protocol)}"
            )
        self.merge_state(other.state())


class MeanMetric(Metric):
    """Mean, over items, of a value each item has by itself; subclasses say which.

    The values are kept, 8 bytes an item, and summed exactly: the mean does not depend on batches,
    on their order or on how parts were merged, to the last digit. An item whose value is NaN could
    not be judged: it does not count, and `update` says so.
    """

    def __init__(self) -> None:
        self._values: list[float] = []

    @abstractmethod
    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Value of each item, [N]; NaN where there is none."""

    @property
    def num_counted(self) -> int:
        """Number of items that entered so far."""
        return len(self._values)

    @torch.no_grad()
    def update(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Take in a batch; returns which of its items count, [N] bool.

        Raises:
            ValueError: If a value is infinite.
        """
        values = self.values(outputs, targets).detach().cpu().double()
        if values.isinf().any():
            raise ValueError(f"{type(self).__name__} gave an infinite value")
        counted = ~values.isnan()
        self._values += values[counted].tolist()
        return counted

    def compute(self) -> float:
        """Mean over the items. Raises ValueError if none has entered."""
        if not self._values:
            raise ValueError(f"{type(self).__name__} has nothing to average")
        return math.fsum(self._values) / len(self._values)

    def standard_deviation(self) -> float:
        """Spread of the values over the items (divided by their number), as the papers print it."""
        mean = self.compute()
        squares = math.fsum((value - mean) ** 2 for value in self._values)
        return math.sqrt(squares / len(self._values))

    def state(self) -> dict[str, Any]:
        """The values taken in."""
        return {"values": list(self._values)}

    def merge_state(self, state: Mapping[str, Any]) -> None:
        """Take in the `state` of a part."""
        self._values += state["values"]
