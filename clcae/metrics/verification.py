"""Quality of a judging network: ROC AUC of its verdicts, R2 of its estimates.

These belong on the cards of the identity embedder and the attribute regressor.
"""

import numpy as np
from torch import Tensor


def roc_auc(
    scores: Tensor,  # [N]
    labels: Tensor,  # [N], bool, or numbers 0 and 1
) -> float:
    """Computes the probability that a positive scores higher than a negative, ties counted half.

    The Mann-Whitney statistic of the ranks, equal to the area under the ROC curve; 0.5 is chance.

    Raises:
        ValueError: if shapes differ, a score is not finite, a label is neither 0 nor 1, or one of
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
    """Computes the share of the variance of each attribute that the estimates explain: [A].

    At most 1; 0 is what the mean of the targets scores.

    Raises:
        ValueError: if shapes differ, there are fewer than two rows, a value is not finite, or an
            attribute does not vary.
    """
    if estimates.shape != targets.shape:
        raise ValueError(
            f"estimates {tuple(estimates.shape)} and targets {tuple(targets.shape)} differ"
        )
    estimates, targets = estimates.detach().cpu().double(), targets.detach().cpu().double()
    if not estimates.isfinite().all() or not targets.isfinite().all():
        raise ValueError("estimates or targets hold values that are not finite")
    centred = targets - targets.mean(dim=0)
    variation = (centred.T @ centred).diagonal()
    if len(targets) < 2 or not (variation > 0).all():
        constant = (variation <= 0).nonzero().flatten().tolist()
        raise ValueError(f"{len(targets)} rows, constant attributes {constant}: no R2")
    return 1 - (estimates - targets).square().sum(dim=0) / variation
