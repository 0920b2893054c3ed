"""Convolution with FIR resampling by a factor of two.

StyleGAN2 (Karras et al. 2020), section 4 and appendix B; `ModulatedConv2d` and `ConvLayer` of
stylegan2-pytorch, `conv2d_resample` of stylegan2-ada-pytorch. Up-sampling runs the transposed
convolution first and filters its output; down-sampling filters first. Weights are stored as both
official codes store them, so checkpoints map without a flip.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from clcae.ops.upfirdn2d import upfirdn2d

Resample = Literal["none", "up", "down"]


def conv2d_resample(
    x: Tensor,  # [N, C_in, H, W]
    weight: Tensor,  # [C_out, C_in, K, K], K odd
    *,
    resample: Resample = "none",
    filter: Tensor | None = None,  # [T]
) -> Tensor:
    """Computes a "same" convolution, and resamples by 1, 2 or 1/2: [N, C_out, H', W'].

    Args:
        x: features.
        weight: correlation weights, as torch.nn.functional.conv2d takes them.
        resample: "none", "up" (x2) or "down" (x1/2).
        filter: low-pass taps; needed unless `resample` is "none".

    Raises:
        ValueError: if `resample` is unknown, the kernel is even, or the filter is missing.
    """
    kernel = weight.shape[-1]
    if kernel % 2 == 0 or weight.shape[-2] != kernel:
        raise ValueError(f"kernel is {tuple(weight.shape[-2:])}, expected a square of odd side")
    if resample == "none":
        return F.conv2d(x, weight, padding=kernel // 2)
    if filter is None:
        raise ValueError(f"resample={resample!r} needs a filter, got None")
    taps, half = filter.numel(), kernel // 2
    if resample == "up":
        # The transposed convolution returns 2H + kernel - 2 rows; filtering removes taps - 1.
        padding = ((taps - kernel) // 2 + 1, (taps - kernel - 1) // 2 + 1)
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        return upfirdn2d(x, filter, padding=padding, gain=4.0)
    if resample == "down":
        padding = ((taps - 1) // 2 + half, (taps - 2) // 2 + half)
        if kernel == 1:  # filtering only the pixels that the stride keeps
            return F.conv2d(upfirdn2d(x, filter, down=2, padding=padding), weight)
        x = upfirdn2d(x, filter, padding=padding)
        return F.conv2d(x, weight, stride=2)
    raise ValueError(f"resample is {resample!r}, expected 'none', 'up' or 'down'")
