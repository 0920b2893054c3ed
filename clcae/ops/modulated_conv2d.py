"""Convolution whose weights are scaled, per sample, by a style.

StyleGAN2 (Karras et al. 2020), section 2.2, equations 1-3; `ModulatedConv2d` of stylegan2-pytorch,
`modulated_conv2d` of stylegan2-ada-pytorch. Deviation: the official codes scale the weights and run
one grouped convolution a sample; here the activations are scaled on the way in (style) and out
(demodulation), which is the same linear map, shares one convolution over the batch and is faster
on every device.
"""

import torch
from torch import Tensor

from clcae.ops.conv2d_resample import Resample, conv2d_resample


def modulated_conv2d(
    x: Tensor,  # [N, C_in, H, W]
    weight: Tensor,  # [C_out, C_in, K, K], already at its effective scale
    styles: Tensor,  # [N, C_in]
    *,
    demodulate: bool = True,
    resample: Resample = "none",
    filter: Tensor | None = None,  # [T]
) -> Tensor:
    """conv(x; w') with w'[n, o, i] = styles[n, i] * weight[o, i], each w'[n, o] of unit norm.

    Args:
        x: the features.
        weight: shared by all samples.
        styles: one scale a sample and input channel.
        demodulate: divide by the norm of the scaled weights (equation 3); to-RGB does not.
        resample: as in conv2d_resample.
        filter: as in conv2d_resample.

    Returns:
        [N, C_out, H', W'].
    """
    x = conv2d_resample(x * styles[:, :, None, None], weight, resample=resample, filter=filter)
    if demodulate:
        squares = styles.square() @ weight.square().sum(dim=(2, 3)).T  # [N, C_out]
        x = x * torch.rsqrt(squares + 1e-8)[:, :, None, None]
    return x
