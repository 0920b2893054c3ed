"""Losses of inversion by optimisation, one value a picture, so that none depends on its batch.

Their sources: squared error and perceptual distance of Image2StyleGAN (Abdal et al. 2019) and F/Z+
(arXiv 2307.08995); the anchor of F at a base code of BDInvert (Kang et al. 2021) and F/Z+; the
penalty of W+ in P_N+; the noise maps' of StyleGAN2 (Karras et al. 2020, appendix D); the domain
regulariser of in-domain inversion (Zhu et al. 2020, section 3.2) and, as its fixed form, an anchor.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from clcae.frozen.judges import PerceptualNetwork
from clcae.stylegan2.normal_space import NormalSpace

SMALLEST_NOISE = 8  # pixels; the pyramid of noise maps ends there


def squared_errors(
    values: Tensor,  # [N, ...]
    targets: Tensor,  # [N, ...]
) -> Tensor:
    """Computes the mean squared difference of each row, [N]; of pictures, features or codes."""
    return (values - targets).square().flatten(1).mean(dim=1)


def domain_errors(
    codes: Tensor,  # [N, L, D]
    again: Tensor,  # [N, L, D], an encoder's codes of their pictures
    *,
    angles: bool,
) -> Tensor:
    """Computes how far codes are from what an encoder makes of their own pictures, [N].

    The mean squared difference; with `angles`, for codes of Z, whose length says nothing, the mean
    over the rows of 1 - cosine. The authors have W+ alone; angles are ours.
    """
    if angles:
        return (1.0 - F.cosine_similarity(codes, again, dim=2)).mean(dim=1)
    return squared_errors(codes, again)


def perceptual_features(
    images: Tensor,  # [N, 3, H, W], in [-1, 1]
    network: PerceptualNetwork,
    size: int | None,
) -> list[Tensor]:
    """Computes features of images scaled to size x size by an antialiased bicubic filter.

    `size` None takes them as they are. Unlike `clcae.data.transforms.resize` it does not clamp, so
    that gradients reach pixels beyond black and white.
    """
    if size is not None and images.shape[-2:] != (size, size):
        images = F.interpolate(
            images, size=(size, size), mode="bicubic", align_corners=False, antialias=True
        )
    return network.features(images)


def normality_errors(
    w: Tensor,  # [N, L, D], codes of W
    space: NormalSpace,
) -> Tensor:
    """Computes the mean square of the coordinates in P_N+, [N]; about 1 for samples."""
    return space.whiten(w).square().flatten(1).mean(dim=1)


def noise_errors(
    maps: Sequence[Tensor],  # [N, 1, R, R] each
) -> Tensor:
    """Sums squared autocorrelations of noise maps at a shift of one pixel, [N].

    In both axes, over a pyramid of each map by averages of 2x2 down to 8x8; 0 for maps without
    structure. Maps of 4x4 count at their own size, as in the official code.
    """
    total = maps[0].new_zeros(len(maps[0]))
    for level in maps:
        while True:
            for axis in (2, 3):
                shifted = torch.roll(level, 1, dims=axis)
                total = total + (level * shifted).mean(dim=(1, 2, 3)).square()
            if level.shape[-1] <= SMALLEST_NOISE:
                break
            level = F.avg_pool2d(level, 2)
    return total
