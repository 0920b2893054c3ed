"""A loss as a weighted sum of named terms."""

from collections.abc import Mapping

import torch
from torch import Tensor


def weighted_sum(
    terms: Mapping[str, Tensor],  # each []
    weights: Mapping[str, float],
) -> Tensor:
    """Sums weights[name] * terms[name].

    Raises:
        ValueError: if a term lacks a weight, or a weight other than zero its term.
    """
    unknown = sorted(set(terms) - set(weights))
    absent = sorted(name for name, weight in weights.items() if weight and name not in terms)
    if unknown or absent:
        raise ValueError(f"terms without a weight: {unknown}; weights without a term: {absent}")
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()
