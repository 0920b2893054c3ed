"""Symmetric InfoNCE, the loss of the aligner, and the retrieval accuracy it is monitored by.

CLCAE, stage 1: L = mean(lambda L(I -> w) + (1 - lambda) L(w -> I)), lambda = 0.5; `ClipLoss` of the
official code. Deviation: negatives of every rank carry gradients (the official gather does not).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(
    image_embeddings: Tensor,  # [N, D]
    latent_embeddings: Tensor,  # [N, D], row i belongs to image i
    scale: Tensor,  # [], 1 / temperature
    *,
    image_weight: float = 0.5,  # lambda; CLCAE section 3.2
) -> Tensor:
    """Computes the cross-entropy of finding the partner among the batch, both ways, []."""
    logits = scale * image_embeddings @ latent_embeddings.T
    labels = torch.arange(len(logits), device=logits.device)
    from_images = F.cross_entropy(logits, labels)
    from_latents = F.cross_entropy(logits.T, labels)
    return image_weight * from_images + (1.0 - image_weight) * from_latents


def retrieval_accuracy(
    image_embeddings: Tensor,  # [N, D]
    latent_embeddings: Tensor,  # [N, D]
) -> tuple[Tensor, Tensor]:
    """Computes the top-1 accuracy of image -> latent and of latent -> image, each []."""
    similarity = image_embeddings @ latent_embeddings.T
    labels = torch.arange(len(similarity), device=similarity.device)
    from_images = (similarity.argmax(dim=1) == labels).float().mean()
    from_latents = (similarity.argmax(dim=0) == labels).float().mean()
    return from_images, from_latents
