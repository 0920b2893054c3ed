"""Frechet distance between the feature distributions of two sets of images.

Heusel et al., "GANs trained by a two time-scale update rule" (2017), equation 6. It is called FID
only with the Inception network of that paper; with torchvision's weights, or the portraits' own
features, it is another number, so the network stands in the protocol.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from clcae.metrics.metric import Direction, Metric
from clcae.metrics.moments import Moments

Features = Callable[[Tensor], Tensor]


def frechet_distance(first: Moments, second: Moments) -> float:
    """Squared Frechet distance of the normal distributions with the given moments.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). The root is never formed: C1 C2 has the eigenvalues
    of the symmetric S C2 S with S = C1^(1/2), and their roots add up to its trace. That is stable
    where there are fewer images than dimensions and both covariances are singular.

    Args:
        first: Moments of two or more vectors [D].
        second: Moments of vectors of the same length.

    Returns:
        The distance, >= 0.

    Raises:
        ValueError: If lengths differ, or either holds fewer than two vectors.
    """
    if first.mean.shape != second.mean.shape:
        raise ValueError(
            f"moments of {len(first.mean)} and {len(second.mean)} dimensions cannot be compared"
        )
    covariance_1, covariance_2 = first.covariance(), second.covariance()
    eigenvalues, eigenvectors = torch.linalg.eigh(covariance_1)
    root = (eigenvectors * eigenvalues.clamp(min=0).sqrt()) @ eigenvectors.T
    between = torch.linalg.eigvalsh(root @ covariance_2 @ root)
    trace_of_root = between.clamp(min=0).sqrt().sum()
    means = (first.mean - second.mean).square().sum()
    distance = means + covariance_1.trace() + covariance_2.trace() - 2 * trace_of_root
    return max(float(distance), 0.0)  # rounding may leave -1e-12 between equal sets


class FrechetDistance(Metric):
    """Frechet distance between the features of all outputs and of all targets.

    The two sets need not be paired: `update_outputs` and `update_targets` take them separately, as
    an editing FID does.

    Args:
        features: Images [N, 3, H, W] in [-1, 1] to features [N, D]; resizing is its own.
        features_name: Network, weights and resize in words, for the protocol.
        dimension: Length D of the features.
    """

    direction: ClassVar[Direction] = "lower"
    range: ClassVar[tuple[float, float]] = (0.0, float("inf"))

    def __init__(self, *, features: Features, features_name: str, dimension: int) -> None:
        self.features = features
        self.features_name = features_name
        self.outputs = Moments(dimension=dimension)
        self.targets = Moments(dimension=dimension)

    @property
    def protocol(self) -> Mapping[str, str]:
        """Everything that would change the value, in words."""
        return {"network": self.features_name, "covariance": "unbiased, float64"}

    @property
    def num_counted(self) -> int:
        """Number of outputs that entered so far."""
        return self.outputs.count

    def update(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Take in a batch of both sets; every image counts, [N] bool."""
        self.update_outputs(outputs)
        self.update_targets(targets)
        return torch.ones(len(outputs), dtype=torch.bool)

    @torch.no_grad()
    def update_outputs(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]
    ) -> None:
        """Take in images of the set that is judged."""
        self.outputs.update(self.features(images))

    @torch.no_grad()
    def update_targets(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]
    ) -> None:
        """Take in images of the set it is compared with."""
        self.targets.update(self.features(images))

    def compute(self) -> float:
        """Distance of the sets. Raises ValueError if either has fewer than two images."""
        return frechet_distance(self.outputs, self.targets)

    def state(self) -> dict[str, Any]:
        """Moments of the features of both sets."""
        return {"outputs": self.outputs, "targets": self.targets}

    def merge_state(self, state: Mapping[str, Any]) -> None:
        """Take in the `state` of a part."""
        self.outputs.merge(state["outputs"])
        self.targets.merge(state["targets"])
