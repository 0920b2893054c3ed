"""The StyleGAN2 losses: non-saturating logistic, R1, path length.

Goodfellow et al. 2014; Mescheder et al. 2018 (R1); Karras et al. 2020, section 3.2 (path length).
Values agree with `d_logistic_loss`, `g_nonsaturating_loss`, `d_r1_loss` and `g_path_regularize` of
stylegan2-pytorch.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def logistic_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Computes softplus(-real) + softplus(fake), means over the batch."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def logistic_generator(fake_logits: Tensor) -> Tensor:
    """Computes the non-saturating loss, softplus(-fake), mean over the batch."""
    return F.softplus(-fake_logits).mean()


def r1_penalty(
    real_logits: Tensor,  # [N, 1]
    inputs: Tensor,  # [N, ...], requires grad
) -> Tensor:
    """Computes the mean squared norm of the gradient of the logits; the loss is gamma / 2 of it."""
    (gradient,) = torch.autograd.grad(real_logits.sum(), inputs, create_graph=True)
    return gradient.square().flatten(1).sum(dim=1).mean()


def path_lengths(
    images: Tensor,  # [N, 3, H, W]
    codes: Tensor,  # [N, L, D], requires grad
    noise: Tensor,  # [N, 3, H, W], standard normal
) -> Tensor:
    """Computes |J^T y| of every picture, averaged over the rows, [N]; differentiable."""
    scaled = noise / math.sqrt(images.shape[2] * images.shape[3])
    (gradient,) = torch.autograd.grad((images * scaled).sum(), codes, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()
