"""Regularisation of W+ codes: the offsets of e4e.

Tov et al. 2021, section 4; `calc_loss` of the official training/coach.py. Its adversarial terms
are those of `clcae.losses.adversarial` on the logits of a latent discriminator.
"""

from torch import Tensor


def offset_norms(
    codes: Tensor,  # [N, L, D]
    stage: int,  # the last row that has its offset
) -> Tensor:
    """Computes sum over i = 1..stage of |codes_i - codes_0|, mean over the batch, []."""
    offsets = codes[:, 1 : stage + 1] - codes[:, :1]
    return offsets.norm(dim=2).sum(dim=1).mean()
