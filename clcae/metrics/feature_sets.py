"""Base classes of metrics over two sets of pictures, by the features of each set.

The sets need not be paired: a distance of distributions knows no pairs.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from clcae.metrics.metric import Metric, check_image_set
from clcae.metrics.reservoir import DEFAULT_MAXIMUM, Reservoir

Features = Callable[[Tensor], Tensor]

ENTRIES = 2**19  # of a matrix over all pairs that lie in memory at once: 4 MiB of float64


class SetMetric(Metric):
    """Compares the set of all outputs with the set of all targets by their features.

    Args:
        features: images [N, 3, H, W] in [-1, 1] to features [N, D]; resizing is its own.
        features_name: network, weights and resize in words, for the protocol.
    """

    def __init__(self, *, features: Features, features_name: str) -> None:
        self.features = features
        self.features_name = features_name

    def update(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Accumulates a batch of both sets; every image counts, [N] bool.

        Raises:
            ValueError: if the images are not in the range, or features are not finite.
        """
        check_image_set(targets)  # before the outputs enter: a batch enters whole or not at all
        self.update_outputs(outputs)
        self.update_targets(targets)
        return torch.ones(len(outputs), dtype=torch.bool)

    def update_outputs(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]
    ) -> None:
        """Accumulates images of the set that is judged. Raises ValueError as `update`."""
        self.take_outputs(self._features_of(images))

    def update_targets(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]
    ) -> None:
        """Accumulates images of the set it is compared with. Raises ValueError as `update`."""
        self.take_targets(self._features_of(images))

    @abstractmethod
    def take_outputs(self, features: Tensor) -> None:
        """Accumulates features [N, D] of outputs."""

    @abstractmethod
    def take_targets(self, features: Tensor) -> None:
        """Accumulates features [N, D] of targets."""

    @torch.no_grad()
    def _features_of(self, images: Tensor) -> Tensor:
        check_image_set(images)
        features = self.features(images)
        if len(features) != len(images) or not features.isfinite().all():
            raise ValueError(
                f"{self.features_name} gave {tuple(features.shape)} for {len(images)} images: "
                "expected one finite row per image"
            )
        return features


class ReservoirMetric(SetMetric):
    """Compares all pairs of features, of which a bounded number of each set is kept.

    Args:
        features, features_name: as of `SetMetric`.
        dimension: length D of the features.
        maximum: features of each set that are kept; of more, a sample by hash.
    """

    def __init__(
        self,
        *,
        features: Features,
        features_name: str,
        dimension: int,
        maximum: int = DEFAULT_MAXIMUM,
    ) -> None:
        super().__init__(features=features, features_name=features_name)
        self.outputs = Reservoir(dimension=dimension, maximum=maximum)
        self.targets = Reservoir(dimension=dimension, maximum=maximum)

    @property
    def protocol(self) -> Mapping[str, str]:
        return {
            "network": self.features_name,
            "samples": f"at most {self.outputs.maximum} of each set, chosen by hash",
        }

    @property
    def num_counted(self) -> int:
        """Counts the outputs that entered so far, kept or not."""
        return self.outputs.count

    def take_outputs(self, features: Tensor) -> None:
        self.outputs.update(features)

    def take_targets(self, features: Tensor) -> None:
        self.targets.update(features)

    def kept(self, *, least: int) -> tuple[Tensor, Tensor]:
        """Returns the features kept of both sets, [M, D] and [K, D] float64.

        Raises:
            ValueError: if either set has fewer than `least`.
        """
        outputs, targets = self.outputs.vectors(), self.targets.vectors()
        if min(len(outputs), len(targets)) < least:
            raise ValueError(
                f"{type(self).__name__} has {len(outputs)} outputs and {len(targets)} targets: "
                f"it needs {least} or more of each"
            )
        return outputs, targets

    def state(self) -> dict[str, Any]:
        return {"outputs": self.outputs, "targets": self.targets}

    def merge_state(self, state: Mapping[str, Any]) -> None:
        self.outputs.merge(state["outputs"])
        self.targets.merge(state["targets"])


def row_blocks(
    vectors: Tensor,  # [M, D]
    *,
    columns: int,
) -> tuple[Tensor, ...]:
    """Splits vectors so that a matrix of each block against `columns` others fits `ENTRIES`.

    A row longer than `ENTRIES` is a block of its own.
    """
    return vectors.split(max(ENTRIES // max(columns, 1), 1))
