"""The 3x3 convolution with four products for two pixels of a row where six are plain: F(2, 3).

Winograd 1980; Lavin and Gray 2016 ("Fast Algorithms for Convolutional Neural Networks"), section
4.1, along the width only. Every window of four columns and every row of a kernel are transformed,
four convolutions with 3x1 kernels follow, each on half of the columns, and two pixels are
transformed back. For a CPU, for weights that do not change and where no gradient is kept: 0.75 to
0.9 of the time of a convolution of 256 or 512 channels; with fewer the transforms cost what the
products save. As exact as the plain sum in float32. The form in both axes saves more products, but
has them as matrices of 16 kinds: measured, it wins on maps of 512 channels and at most 32 pixels,
and loses half as much again on 256 channels and several samples.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

FEWEST_CHANNELS = 256

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
    """Whether these weights are worth transforming: 3x3, wide, float32 on a CPU."""
    if weight.shape[2:] != (3, 3) or min(weight.shape[:2]) < FEWEST_CHANNELS:
        return False
    return weight.device.type == "cpu" and weight.dtype == torch.float32


def takes(
    x: Tensor,  # [N, C, H, W]
) -> bool:
    """Whether `winograd_conv2d` can read this: float32, an even width of at least 8."""
    even = x.shape[3] % 2 == 0 and x.shape[3] >= 8 and not _disabled
    return even and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


def transformed(
    weight: Tensor,  # [C_out, C_in, 3, 3]
) -> Tensor:
    """[4 * C_out, C_in, 3, 1], channels last: g G^T of every row of a kernel."""
    left, middle, right = weight.unbind(3)
    outer = left + right
    columns = torch.cat([left, (outer + middle) / 2, (outer - middle) / 2, right])
    return columns[..., None].contiguous(memory_format=torch.channels_last)


def winograd_conv2d(
    x: Tensor,  # [N, C_in, H, W], W even; fast where channels are last
    weight: Tensor,  # [4 * C_out, C_in, 3, 1], `transformed`
) -> Tensor:
    """conv2d(x, weight, padding=1) without a graph: [N, C_out, H, W], channels last."""
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
    """B^T d of windows of four columns, each made when it is asked for."""
    yield first - third
    yield second + third
    yield third - second
    yield second - fourth
