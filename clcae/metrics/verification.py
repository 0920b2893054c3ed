"""How well a judging network judges: ROC AUC of its verdicts, R2 of its estimates.

These belong on the cards of the identity embedder and the attribute regressor. Scores are kept and
sorted at the end, because an AUC is a matter of ranks and has no running form.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from clcae.metrics.metric import Direction, Metric
from clcae.metrics.moments import Moments


def roc_auc(
    scores: Tensor,  # [N]
    labels: Tensor,  # [N], bool
) -> float:
    """Probability that a positive scores higher than a negative, ties counted half.

    The Mann-Whitney statistic of the ranks, equal to the area under the ROC curve.

    Args:
        scores: Scores [N], finite, of any scale.
        labels: Labels [N]: bool, or numbers 0 and 1.

    Returns:
        The area, in [0, 1]; 0.5 is chance.

    Raises:
        ValueError: If shapes differ, a score is not finite, a label is neither 0 nor 1, or one of
            the two classes is missing.
    """
    if scores.shape != labels.shape or scores.ndim != 1:
        raise ValueError(
            f"scores {tuple(scores.shape)} and labels {tuple(labels.shape)}: expected one [N]"
        )
    if not scores.isfinite().all():
        raise ValueError("scores hold values that are not finite")
    if not ((labels == 0) | (labels == 1)).all():
        raise ValueError("labels hold values other than 0 and 1")
    values = scores.detach().cpu().double().numpy()
    positive = labels.detach().cpu().numpy().astype(bool)
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    if num_positive == 0 or num_negative == 0:
        raise ValueError(f"{num_positive} positives and {num_negative} negatives: both are needed")
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[group]  # from 1; the mean rank of tied scores
    surplus = ranks[positive].sum() - num_positive * (num_positive + 1) / 2
    return float(surplus / (num_positive * num_negative))


def r2_score(
    estimates: Tensor,  # [N, A]
    targets: Tensor,  # [N, A]
) -> Tensor:
    """Share of the variance of each attribute that the estimates explain.

    Args:
        estimates: Estimates [N, A].
        targets: True values of the same shape.

    Returns:
        [A], float64, at most 1; 0 is what the mean of the targets scores.

    Raises:
        ValueError: If shapes differ, there are fewer than two rows, a value is not finite, or an
            attribute does not vary.
    """
    metric = R2Score(num_attributes=targets.shape[-1])
    metric.update(estimates, targets)
    return metric.per_attribute()


class RocAuc(Metric):
    """`roc_auc` of all scores taken in.

    Args:
        task: What is told apart, in words, for the protocol.
    """

    direction: ClassVar[Direction] = "higher"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __init__(self, *, task: str) -> None:
        self.task = task
        self._scores: list[Tensor] = []
        self._labels: list[Tensor] = []

    @property
    def protocol(self) -> Mapping[str, str]:
        """Everything that would change the value, in words."""
        return {"task": self.task, "ties": "half"}

    @property
    def num_counted(self) -> int:
        """Number of scores that entered so far."""
        return sum(len(scores) for scores in self._scores)

    def update(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Take in scores [N] and labels [N]; all count, [N] bool."""
        if outputs.shape != targets.shape or outputs.ndim != 1:
            raise ValueError(
                f"scores {tuple(outputs.shape)} and labels {tuple(targets.shape)}: expected one [N]"
            )
        # Copied, because a caller may fill the same memory again.
        self._scores.append(outputs.detach().cpu().double().clone())
        self._labels.append(targets.detach().cpu().double().clone())
        return torch.ones(len(outputs), dtype=torch.bool)

    def compute(self) -> float:
        """Area under the curve. Raises ValueError if a class is missing."""
        if not self._scores:
            raise ValueError("RocAuc has no scores")
        return roc_auc(torch.cat(self._scores), torch.cat(self._labels))

    def state(self) -> dict[str, Any]:
        """All scores and labels, in the batches they came in."""
        return {"scores": list(self._scores), "labels": list(self._labels)}

    def merge_state(self, state: Mapping[str, Any]) -> None:
        """Take in the `state` of a part."""
        self._scores += state["scores"]
        self._labels += state["labels"]


class R2Score(Metric):
    """Mean over attributes of `r2_score` of everything taken in.

    Args:
        num_attributes: Number A of attributes.
    """

    direction: ClassVar[Direction] = "higher"
    range: ClassVar[tuple[float, float]] = (float("-inf"), 1.0)

    def __init__(self, *, num_attributes: int) -> None:
        self._targets = Moments(dimension=num_attributes)
        self._residual = torch.zeros(num_attributes, dtype=torch.float64)

    @property
    def protocol(self) -> Mapping[str, str]:
        """Everything that would change the value, in words."""
        return {"averaging": f"mean over {len(self._residual)} attributes"}

    @property
    def num_counted(self) -> int:
        """Number of rows that entered so far."""
        return self._targets.count

    def update(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Take in estimates [N, A] and true values [N, A]; all rows count, [N] bool."""
        if outputs.shape != targets.shape:
            raise ValueError(
                f"estimates {tuple(outputs.shape)} and targets {tuple(targets.shape)} differ"
            )
        if not outputs.isfinite().all():
            raise ValueError("estimates hold values that are not finite")
        self._targets.update(targets)
        error = outputs.detach().cpu().double() - targets.detach().cpu().double()
        self._residual = self._residual + error.square().sum(dim=0)
        return torch.ones(len(outputs), dtype=torch.bool)

    def per_attribute(self) -> Tensor:
        """Return R2 of each attribute, [A] float64.

        Raises:
            ValueError: If there are fewer than two rows, or an attribute does not vary.
        """
        variation = self._targets.scatter.diagonal()
        if self.num_counted < 2 or not (variation > 0).all():
            constant = (variation <= 0).nonzero().flatten().tolist()
            raise ValueError(f"{self.num_counted} rows, constant attributes {constant}: no R2")
        return 1 - self._residual / variation

    def compute(self) -> float:
        """Mean over the attributes. Raises ValueError if one has no R2."""
        return float(self.per_attribute().mean())

    def state(self) -> dict[str, Any]:
        """Moments of the true values, and the squared errors of each attribute."""
        return {"targets": self._targets, "residual": self._residual}

    def merge_state(self, state: Mapping[str, Any]) -> None:
        """Take in the `state` of a part."""
        self._targets.merge(state["targets"])
        self._residual = self._residual + state["residual"]
