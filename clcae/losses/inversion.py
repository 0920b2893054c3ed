"""Losses of inversion encoders: reconstruction, the two of CLCAE, and their weighted sum.

CLCAE section 3.3 and the official stage 2: squared error, perceptual and identity terms on G(w),
G(w+) and G(w+, f), feature regularisation MSE(f, G(w+)), alignment under the frozen aligner. The
judges are the domain's: LPIPS with ArcFace for faces, with MoCo for cars, and the portraits' own.
"""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from clcae.aligner import Aligner
from clcae.frozen.judges import Judges
from clcae.losses.contrastive import info_nce
from clcae.nn.gather import gather_rows

AlignmentTarget = Literal["output", "input"]


def reconstruction_terms(
    pictures: Mapping[str, Tensor],  # name -> [N, 3, H, W]
    targets: Tensor,  # [N, 3, H, W]
    judges: Judges,
) -> dict[str, dict[str, Tensor]]:
    """Computes terms "l2", "perceptual" and "identity" (1 - cosine): term -> output -> []."""
    with torch.no_grad():
        target_features = judges.features(targets)
        target_embeddings = judges.embed(target_features)
    features = judges.features(torch.cat(list(pictures.values())))
    embeddings = judges.embed(features).split(len(targets))
    split = [feature.split(len(targets)) for feature in features]
    terms: dict[str, dict[str, Tensor]] = {"l2": {}, "perceptual": {}, "identity": {}}
    for index, (name, picture) in enumerate(pictures.items()):
        own = [feature[index] for feature in split]
        cosine = (embeddings[index] * target_embeddings).sum(dim=1)
        terms["l2"][name] = (picture.float() - targets).square().mean()
        terms["perceptual"][name] = judges.distance(own, target_features).float().mean()
        terms["identity"][name] = 1.0 - cosine.float().mean()
    return terms


def reconstruction_rows(
    pictures: Tensor,  # [N, 3, H, W]
    targets: Tensor,  # [N, 3, H, W]
    judges: Judges,
) -> dict[str, Tensor]:
    """Computes terms "l2", "perceptual" and "identity" (1 - cosine) of every picture, each [N]."""
    with torch.no_grad():
        target_features = judges.features(targets)
        target_embeddings = judges.embed(target_features)
    features = judges.features(pictures)
    return {
        "l2": (pictures.float() - targets).square().mean(dim=(1, 2, 3)),
        "perceptual": judges.distance(features, target_features).float(),
        "identity": 1.0 - (judges.embed(features) * target_embeddings).sum(dim=1).float(),
    }


def alignment_term(
    images: Tensor,  # [N, 3, H, W]
    w: Tensor,  # [N, w_dim]
    aligner: Aligner,
) -> Tensor:
    """Computes InfoNCE of codes and images over all ranks, under a frozen aligner, [].

    Deviation: the official code compares within one process, and with two images there chance is
    log 2.
    """
    image_embeddings = gather_rows(aligner.embed_images(images).float())
    latent_embeddings = gather_rows(aligner.embed_latents(w).float())
    return info_nce(image_embeddings, latent_embeddings, aligner.scale)


def feature_term(feature: Tensor, own: Tensor) -> Tensor:
    """Computes the MSE between F and the generator's own feature, which is detached, []."""
    return (feature - own.detach()).square().mean()


def checked_weights(weights: Mapping[str, float], *, of: str = "weights") -> dict[str, float]:
    """Copies the weights of losses. Raises ValueError unless each is finite, and 0 or more."""
    for name, weight in weights.items():
        if not 0 <= weight < math.inf:
            raise ValueError(f"{of}.{name} is {weight}: expected a number of 0 or more")
    return dict(weights)


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
