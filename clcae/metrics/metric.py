"""What every metric is: an accumulator with a range, a direction and a protocol.

A number can be compared only under its protocol, so a metric carries it: range, resize, window,
network, whatever would change the value. Sums are float64 on the CPU, whatever the device and type
of the images, and parts merge into the whole.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from clcae.metrics.moments import Moments

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

    An item whose value is NaN could not be judged: it does not count, and `update` says so.
    """

    def __init__(self) -> None:
        self._moments = Moments(dimension=1)

    @abstractmethod
    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Value of each item, [N]; NaN where there is none."""

    @property
    def num_counted(self) -> int:
        """Number of items that entered so far."""
        return self._moments.count

    @torch.no_grad()
    def update(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Take in a batch; returns which of its items count, [N] bool."""
        values = self.values(outputs, targets).detach().cpu().double()
        counted = ~values.isnan()
        self._moments.update(values[counted, None])
        return counted

    def compute(self) -> float:
        """Mean over the items. Raises ValueError if none has entered."""
        if self.num_counted == 0:
            raise ValueError(f"{type(self).__name__} has nothing to average")
        return float(self._moments.mean[0])

    def standard_deviation(self) -> float:
        """Spread of the values over the items (divided by their number), as the papers print it."""
        if self.num_counted == 0:
            raise ValueError(f"{type(self).__name__} has nothing to average")
        return float((self._moments.scatter[0, 0] / self.num_counted).sqrt())

    def state(self) -> dict[str, Any]:
        """Moments of the values taken in."""
        return {"moments": self._moments}

    def merge_state(self, state: Mapping[str, Any]) -> None:
        """Take in the `state` of a part."""
        self._moments.merge(state["moments"])
