"""Kernel distance between the feature distributions of two sets of images; with Inception, KID.

Binkowski et al., "Demystifying MMD GANs" (2018), section 3: the unbiased estimate of the squared
maximum mean discrepancy with the kernel (x . y / D + 1)^3. Unlike a Frechet distance it does not
depend on the number of images in the mean; it may be slightly negative. Deviation from
torch-fidelity: features enter subsets in an order of their own, not in that of the files, so
that the subsets do not depend on it.
"""

import statistics
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from clcae.metrics.feature_sets import Features, ReservoirMetric, row_blocks


def kernel_distance(
    first: Tensor,  # [M, D]
    second: Tensor,  # [K, D]
) -> float:
    """Estimates the squared maximum mean discrepancy over all pairs without bias.

    Equation 4 of Binkowski et al. for sets of any sizes: no vector is paired with itself, and every
    one of the first with every one of the second. For equal distributions it is below 0 as often as
    above.

    Raises:
        ValueError: if lengths differ, or either has fewer than two vectors.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(
            f"vectors {tuple(first.shape)} and {tuple(second.shape)}: expected [M, D] and [K, D]"
        )
    if min(len(first), len(second)) < 2:
        raise ValueError(f"{len(first)} and {len(second)} vectors: two or more of each are needed")
    first, second = first.double(), second.double()
    within = sum(
        (_kernel_sum(x, x) - float(_cubic(x.square().sum(dim=1), x.shape[1]).sum()))
        / (len(x) * (len(x) - 1))
        for x in (first, second)
    )
    return within - 2 * _kernel_sum(first, second) / (len(first) * len(second))


class KernelDistance(ReservoirMetric):
    """Computes the kernel distance between the features of outputs and targets, over all pairs."""

    direction = "lower"
    range = (float("-inf"), float("inf"))

    @property
    def protocol(self) -> Mapping[str, str]:
        return {
            **super().protocol,
            "kernel": "polynomial, degree 3, gamma 1/D, coefficient 1",
            "estimate": "unbiased squared MMD over all pairs",
            "scale": "not multiplied by 1000",
        }

    def compute(self) -> float:
        return kernel_distance(*self.kept(least=2))


class SubsetKernelDistance(KernelDistance):
    """Averages `kernel_distance` over random subsets, as torch-fidelity prints KID.

    Args:
        features, features_name, dimension: as of `ReservoirMetric`.
        number: how many subsets.
        size: features of each set in a subset, drawn without replacement.
        seed: of NumPy's generator.
    """

    def __init__(
        self,
        *,
        features: Features,
        features_name: str,
        dimension: int,
        number: int = 100,
        size: int = 1000,
        seed: int = 2020,  # torch-fidelity's
    ) -> None:
        super().__init__(features=features, features_name=features_name, dimension=dimension)
        self.number, self.size, self.seed = number, size, seed

    @property
    def protocol(self) -> Mapping[str, str]:
        subsets = f"mean over {self.number} subsets of {self.size}, seed {self.seed}"
        return {**super().protocol, "estimate": f"unbiased squared MMD, {subsets}"}

    def compute(self) -> float:
        """Computes the mean. Raises ValueError if a set has fewer images than a subset."""
        sets = self.kept(least=self.size)
        generator = np.random.RandomState(self.seed)
        values = []
        for _ in range(self.number):
            drawn = [
                vectors[generator.choice(len(vectors), self.size, replace=False)]
                for vectors in sets
            ]
            values.append(kernel_distance(*drawn))
        return statistics.fmean(values)


def _cubic(products: Tensor, dimension: int) -> Tensor:
    return (products / dimension + 1) ** 3


def _kernel_sum(first: Tensor, second: Tensor) -> float:
    """Sums the kernel over all pairs, block by block."""
    sums = [
        float(_cubic(rows @ second.T, first.shape[1]).sum())
        for rows in row_blocks(first, columns=len(second))
    ]
    return float(torch.tensor(sums, dtype=torch.float64).sum())
