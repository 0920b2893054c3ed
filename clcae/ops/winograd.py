"""Winograd's 3x3 convolution F(2, 3): four products for two pixels of a row in place of six.

Winograd 1980; Lavin and Gray 2016 ("Fast Algorithms for Convolutional Neural Networks"), section
4.1, along the width only. Windows of four columns and rows of the kernel are transformed, four
convolutions with 3x1 kernels follow, each on half of the columns, and pixels are transformed back
in pairs. For frozen weights on a CPU, without gradients: 0.75 to 0.9 of the time of a convolution
of 256 or 512 channels; with fewer channels the transforms cost what the products save. Rounding is
that of a plain convolution in float32; in bfloat16 the error is twice as large, 47 dB for 53. The
form along both axes was measured too: faster on maps of 512 channels and at most 32 pixels, 1.5
times slower on 256 channels and several samples.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

FEWEST_CHANNELS = 256  # below, the plain convolution is faster
NARROWEST = {torch.float32: 8, torch.bfloat16: 32}  # pixels; narrower maps are slower

_disabled = False


@contextmanager
def disabled() -> Iterator[None]:
    """Runs plain convolutions in the whole process while the block runs (to count operations)."""
    global _disabled
    before, _disabled = _disabled, True
    try:
        yield
    finally:
        _disabled = before


def pays(
    weight: Tensor,  # [C_out, C_in, K, K]
) -> bool:
    """Returns whether these weights are worth transforming: 3x3, wide, float32 on a CPU."""
    if weight.shape[2:] != (3, 3) or min(weight.shape[:2]) < FEWEST_CHANNELS:
        return False
    return weight.device.type == "cpu" and weight.dtype == torch.float32


def takes(
    x: Tensor,  # [N, C, H, W]
) -> bool:
    """Returns whether `winograd_conv2d` supports x and pays: an even width, of `NARROWEST` up."""
    narrowest = NARROWEST.get(x.dtype)
    if narrowest is None or _disabled or torch.is_autocast_enabled("cpu"):
        return False
    return x.shape[3] % 2 == 0 and x.shape[3] >= narrowest


def transformed(
    weight: Tensor,  # [C_out, C_in, 3, 3]
) -> Tensor:
    """Transforms every row g of the kernels to g G^T: [4 * C_out, C_in, 3, 1], channels last."""
    left, middle, right = weight.unbind(3)
    outer = left + right
    columns = torch.cat([left, (outer + middle) / 2, (outer - middle) / 2, right])
    return columns[..., None].contiguous(memory_format=torch.channels_last)


def winograd_conv2d(
    x: Tensor,  # [N, C_in, H, W], W even; fast where channels are last
    weight: Tensor,  # [4 * C_out, C_in, 3, 1], `transformed`
) -> Tensor:
    """Computes conv2d(x, weight, padding=1) without gradients: [N, C_out, H, W], channels last."""
    samples, _, height, width = x.shape
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1))  # [N, H, W + 2, C_in]
    even, odd = padded.unflatten(2, (-1, 2)).unbind(3)
    first, second, third, fourth = even[:, :, :-1], odd[:, :, :-1], even[:, :, 1:], odd[:, :, 1:]
    outer, total, difference, last = (
        F.conv2d(columns.permute(0, 3, 1, 2), kernel, padding=(1, 0)).permute(0, 2, 3, 1)
        for columns, kernel in zip(
            _transformed(first, second, third, fourth), weight.chunk(4), strict=True
        )
    )
    out = x.new_empty(samples, height, width // 2, 2, len(weight) // 4)
    torch.add(total, difference, out=out[:, :, :, 0]).add_(outer)
    torch.sub(total, difference, out=out[:, :, :, 1]).sub_(last)
    return out.flatten(2, 3).permute(0, 3, 1, 2)


def _transformed(first: Tensor, second: Tensor, third: Tensor, fourth: Tensor) -> Iterator[Tensor]:
    """Yields the four parts of B^T d, d being windows of four columns."""
    yield first - third
    yield second + third
    yield third - second
    yield second - fourth
