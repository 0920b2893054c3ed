"""Convolution whose weights are scaled, per sample, by a style.

StyleGAN2 (Karras et al. 2020), section 2.2, equations 1-3; `ModulatedConv2d` of stylegan2-pytorch,
`modulated_conv2d` of stylegan2-ada-pytorch. Deviation: the official codes scale the weights and run
one grouped convolution a sample; here the activations are scaled before (style) and after the
convolution (demodulation), which is the same linear map, shares one convolution over the batch and
is faster on every device. Weights are scaled for a single sample without gradients, if they are
fewer than its activations, and in the 1x1 convolution to RGB.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from clcae.ops import winograd
from clcae.ops.conv2d_resample import Resample, conv2d_resample


@dataclass(frozen=True)
class Prepared:
    """Terms that depend on the weights alone, precomputed for frozen weights."""

    squares: Tensor  # [C_out, C_in], squared weights summed over the kernel
    weight: Tensor  # weights in the memory layout of the convolution
    winograd: Tensor | None  # [4 * C_out, C_in, 3, 1], if that convolution is faster


def prepared(
    weight: Tensor,  # [C_out, C_in, K, K]
    resample: Resample = "none",
) -> Prepared:
    """Precomputes the weight-only terms of `modulated_conv2d`, without gradients."""
    weight = weight.detach()
    plain = resample == "none"
    in_order = weight if plain else weight.transpose(0, 1)  # order of a transposed convolution
    in_order = in_order.contiguous(memory_format=torch.channels_last)
    return Prepared(
        squares=squared_norms(weight),
        weight=in_order if plain else in_order.transpose(0, 1),
        winograd=winograd.transformed(weight) if plain and winograd.pays(weight) else None,
    )


def modulated_conv2d(
    x: Tensor,  # [N, C_in, H, W]
    weight: Tensor,  # [C_out, C_in, K, K], already at its effective scale
    styles: Tensor,  # [N, C_in]
    *,
    demodulate: bool = True,
    resample: Resample = "none",
    filter: Tensor | None = None,  # [T]
    frozen: Prepared | None = None,
    gain: float = 1.0,
) -> Tensor:
    """Computes gain * conv(x; w'), w'[n, o, i] = styles[n, i] * weight[o, i], w'[n, o] normalised.

    Args:
        x: features.
        weight: weights shared by all samples.
        styles: one scale a sample and input channel.
        demodulate: divide by the norm of the scaled weights (equation 3); to-RGB does not.
        resample: as in conv2d_resample.
        filter: as in conv2d_resample.
        frozen: precomputed terms of `weight`, which gets no gradient then; None: computed here.
        gain: factor on the result.

    Returns:
        [N, C_out, H', W'].
    """
    scales: Tensor | None = None
    if demodulate:
        squares = squared_norms(weight) if frozen is None else frozen.squares
        scales = torch.rsqrt(styles.square() @ squares.T + 1e-8) * gain  # [N, C_out]
    elif gain != 1.0:
        styles = styles * gain
    if weight.shape[2:] == (1, 1) and resample == "none":
        return _pointwise(x, weight, styles, scales)
    weight = weight if frozen is None else frozen.weight
    recorded = _recorded(x, weight, styles)
    fast = frozen.winograd if frozen is not None and not recorded and winograd.takes(x) else None
    if fast is not None:
        weight = fast
    by_weight = not recorded and len(x) == 1 and weight.numel() < x.numel()
    if by_weight:
        weight = weight * styles[0, :, None, None]
        if scales is not None:
            copies = len(weight) // scales.shape[1]
            weight = weight.mul_(scales[0].repeat(copies)[:, None, None, None])
    else:
        x = x * styles[:, :, None, None]
    if fast is not None:
        x = winograd.winograd_conv2d(x, weight)
    else:
        x = conv2d_resample(x, weight, resample=resample, filter=filter)
    if by_weight or scales is None:
        return x
    scales = scales[:, :, None, None]
    wider = torch.promote_types(x.dtype, scales.dtype) != x.dtype
    return x * scales if wider or _recorded(scales) else x.mul_(scales)


def squared_norms(
    weight: Tensor,  # [C_out, C_in, K, K]
) -> Tensor:
    """Sums squared weights over the kernel, for demodulation: [C_out, C_in]."""
    return weight.square().sum(dim=(2, 3))


def _pointwise(
    x: Tensor,  # [N, C_in, H, W]
    weight: Tensor,  # [C_out, C_in, 1, 1]
    styles: Tensor,  # [N, C_in]
    scales: Tensor | None,  # [N, C_out]
) -> Tensor:
    """Computes a 1x1 convolution as one matrix product a sample; no copy of the activations."""
    matrices = styles[:, None] * weight.flatten(1)  # [N, C_out, C_in]
    if scales is not None:
        matrices = matrices * scales[:, :, None]
    pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # [N, H * W, C_in], a view where channels are last
    return (pixels @ matrices.mT).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


def _recorded(*tensors: Tensor) -> bool:
    """Returns whether autograd records one of the tensors."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
