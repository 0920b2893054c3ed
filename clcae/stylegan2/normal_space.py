"""P_N+: codes of W in coordinates in which samples of the mapping network are standard normal.

"Improved StyleGAN Embedding: Where are the Good Latents?" (Zhu et al. 2020, arXiv 2012.09036),
section 3; the regulariser of W+ in BDInvert and in the code of F/Z+. The leaky ReLU that ends the
mapping network is undone (slope 5, the inverse of 0.2), the mean subtracted, and the rest whitened
by its principal components. Deviation: components whose variance is below 1e-8 of the largest are
divided by that instead, which bounds the coordinates of a code that no sample comes near.
"""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from clcae.stylegan2.generator import Generator

SLOPE = 5.0
NUM_SAMPLES = 1_000_000  # official code
BATCH = 10_000
_SMALLEST = 1e-8


@dataclass(frozen=True)
class NormalSpace:
    """The whitening of one generator's W."""

    mean: Tensor  # [D], after the leaky ReLU is undone
    basis: Tensor  # [D, D], a unit eigenvector of the covariance in every column
    deviations: Tensor  # [D], standard deviations along the columns

    @classmethod
    @torch.no_grad()
    def of(cls, generator: Generator, *, num_samples: int = NUM_SAMPLES, seed: int = 0) -> Self:
        """Measures mean and covariance of mapped samples, in float64.

        Raises:
            ValueError: if there are no more samples than dimensions.
        """
        if num_samples <= generator.w_dim:
            raise ValueError(
                f"num_samples is {num_samples}, expected more than the {generator.w_dim} of w"
            )
        rng, device = torch.Generator().manual_seed(seed), generator.w_average.device
        total = torch.zeros(generator.w_dim, dtype=torch.float64)
        products = torch.zeros(generator.w_dim, generator.w_dim, dtype=torch.float64)
        for first in range(0, num_samples, BATCH):
            count = min(BATCH, num_samples - first)
            z = torch.randn(count, generator.z_dim, generator=rng).to(device)
            p = F.leaky_relu(generator.map(z), SLOPE).cpu().double()
            total += p.sum(dim=0)
            products += p.T @ p
        mean = total / num_samples
        covariance = products / num_samples - torch.outer(mean, mean)
        variances, basis = torch.linalg.eigh(covariance)
        deviations = variances.clamp(min=float(variances.max()) * _SMALLEST).sqrt()
        return cls(*(value.float().to(device) for value in (mean, basis, deviations)))

    def whiten(
        self,
        w: Tensor,  # [..., D]
    ) -> Tensor:
        """Returns the coordinates of codes, of the same shape; about N(0, 1) for samples."""
        return (F.leaky_relu(w, SLOPE) - self.mean) @ self.basis / self.deviations
