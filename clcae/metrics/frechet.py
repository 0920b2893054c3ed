"""Frechet distance between the feature distributions of two sets of images.

Heusel et al., "GANs trained by a two time-scale update rule" (2017), equation 6. It is called FID
only with the Inception network of that paper; with torchvision's weights, or the portraits' own
features, it is another number, so the network stands in the protocol.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from clcae.metrics.feature_sets import Features, SetMetric
from clcae.metrics.metric import LabelledMetric, check_image_set
from clcae.metrics.moments import Moments


def frechet_distance(first: Moments, second: Moments) -> float:
    """Computes the squared Frechet distance of normal distributions with the given moments.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). The root is never formed: C1 C2 has the eigenvalues
    of the symmetric S C2 S with S = C1^(1/2), and their roots add up to its trace. That is stable
    where there are fewer images than dimensions and both covariances are singular.

    Raises:
        ValueError: if lengths differ, or either holds fewer than two vectors.
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


class _MomentsInBlocks:
    """Buffers vectors and adds 512 of them to moments at once, at the cost of one (2048-D)."""

    block = 512

    def __init__(self, moments: Moments) -> None:
        self._moments = moments
        self._waiting: list[Tensor] = []

    def update(self, vectors: Tensor) -> None:
        """Copies vectors [N, D] into the buffer."""
        dimension = len(self._moments.mean)
        if vectors.ndim != 2 or vectors.shape[1] != dimension:
            raise ValueError(f"vectors are {tuple(vectors.shape)}: expected [N, {dimension}]")
        self._waiting.append(vectors.detach().cpu().double().clone())
        if sum(len(part) for part in self._waiting) >= self.block:
            self.moments()

    def moments(self) -> Moments:
        """Returns the moments of everything accumulated."""
        if self._waiting:
            self._moments.update(torch.cat(self._waiting))
            self._waiting = []
        return self._moments


class FrechetDistance(SetMetric):
    """Computes the Frechet distance between the features of all outputs and of all targets.

    `dimension` is the length D of the features.
    """

    direction = "lower"
    range = (0.0, float("inf"))

    def __init__(self, *, features: Features, features_name: str, dimension: int) -> None:
        super().__init__(features=features, features_name=features_name)
        self._outputs = _MomentsInBlocks(Moments(dimension=dimension))
        self._targets = _MomentsInBlocks(Moments(dimension=dimension))

    @property
    def outputs(self) -> Moments:
        """Returns the moments of the features of outputs."""
        return self._outputs.moments()

    @property
    def targets(self) -> Moments:
        """Returns the moments of the features of targets; those of a known set may be merged."""
        return self._targets.moments()

    @property
    def protocol(self) -> Mapping[str, str]:
        return {"network": self.features_name, "covariance": "unbiased, float64"}

    @property
    def num_counted(self) -> int:
        return self.outputs.count

    def take_outputs(self, features: Tensor) -> None:
        self._outputs.update(features)

    def take_targets(self, features: Tensor) -> None:
        self._targets.update(features)

    def compute(self) -> float:
        outputs, targets = self.outputs, self.targets
        if min(outputs.count, targets.count) < 2:
            raise ValueError(
                f"{type(self).__name__} has {outputs.count} outputs and {targets.count} targets: "
                "it needs two or more of each"
            )
        return frechet_distance(outputs, targets)

    def state(self) -> dict[str, Any]:
        return {"outputs": self.outputs, "targets": self.targets}

    def merge_state(self, state: Mapping[str, Any]) -> None:
        self.outputs.merge(state["outputs"])
        self.targets.merge(state["targets"])


class EditingFrechetDistance(FrechetDistance, LabelledMetric):
    """Compares pictures edited to have an attribute with real pictures that have it.

    The protocol of StyleRes (section 4.2) and StyleFeatureEditor: the test set is split by an
    attribute, the pictures without it are edited to have it, and the set of the edited ones is
    compared with the real ones that had it. For an edit that takes an attribute away, labels say
    who lacks it.

    Args:
        features, features_name, dimension: as of `FrechetDistance`.
        labels: real images [N, 3, H, W] to [N], 1 for those with the attribute, 0 for those
            without, NaN where that is unknown, as of a classifier. None where labels come from an
            annotation instead: hand them to `update_labelled`.
        attribute: the attribute, and what says who has it, in words, for the protocol.
    """

    def __init__(
        self,
        *,
        features: Features,
        features_name: str,
        dimension: int,
        labels: Callable[[Tensor], Tensor] | None,
        attribute: str,
    ) -> None:
        super().__init__(features=features, features_name=features_name, dimension=dimension)
        self.labels = labels
        self.attribute = attribute

    @property
    def protocol(self) -> Mapping[str, str]:
        return {
            **super().protocol,
            "attribute": self.attribute,
            "sets": "edited pictures of inputs without it, against real inputs with it",
        }

    def update(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Accumulates a batch that `labels` judges; unknown ones do not count, [N] bool."""
        assert self.labels is not None
        return self.update_labelled(outputs, targets, self.labels(targets))

    def update_labelled(
        self,
        outputs: Tensor,  # [N, 3, H, W], in [-1, 1]
        targets: Tensor,  # [N, 3, H, W], in [-1, 1]
        labels: Tensor,  # [N]
    ) -> Tensor:
        """Accumulates edited pictures and their inputs, whose labels are known.

        `outputs` are all inputs edited; edits of inputs with the attribute are not looked at.
        Labels are 1 for inputs with the attribute, 0 for those without, NaN for unknown.

        Raises:
            ValueError: if numbers differ, a label is another number, or the images are not in the
                range.
        """
        values = labels.detach().to(targets.device).float()
        having, lacking = values == 1, values == 0
        known = having | lacking
        if len(outputs) != len(targets) or values.shape != (len(targets),):
            raise ValueError(
                f"{len(outputs)} edited pictures, {len(targets)} inputs, labels "
                f"{tuple(labels.shape)}: expected one number"
            )
        if not (known | values.isnan()).all():
            raise ValueError(f"labels are {labels.tolist()}: expected 0, 1 or NaN")
        check_image_set(outputs)
        check_image_set(targets)
        if having.any():
            self.update_targets(targets[having])
        if lacking.any():
            self.update_outputs(outputs[lacking])
        return known.cpu()
