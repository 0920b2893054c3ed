"""Up-sample, FIR filter, down-sample: the resampling operator of StyleGAN2.

Karras et al. 2020, appendix B; the operator of stylegan2-pytorch and stylegan2-ada-pytorch.
Up-sampling inserts `up - 1` zeros after every sample, the filter is applied as a true convolution
(taps flipped), down-sampling keeps every `down`-th sample. On a GPU it is one fused kernel
(csrc/upfirdn2d.h) where that can be built. Deviation: the filter is one axis of a separable kernel;
every published StyleGAN2 uses the separable [1, 3, 3, 1].
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from clcae.ops import kernels

Padding = tuple[int, int]  # (before, after), the same on both axes; negative crops

AT_ONCE = 8  # most taps for which the kernel filters both axes in one pass


def low_pass(taps: Sequence[float] = (1.0, 3.0, 3.0, 1.0)) -> Tensor:
    """Normalises taps to a float32 vector of sum one.

    Raises:
        ValueError: if the taps are no row of numbers, or sum to zero.
    """
    filter = torch.tensor(taps, dtype=torch.float32)
    if filter.ndim != 1 or not filter.numel() or float(filter.sum()) == 0.0:
        raise ValueError(f"taps {list(taps)!r} are no low-pass filter: a non-empty row, sum not 0")
    return filter / filter.sum()


def upfirdn2d(
    x: Tensor,  # [N, C, H, W]
    filter: Tensor,  # [T], one axis of the separable kernel
    *,
    up: int = 1,
    down: int = 1,
    padding: Padding = (0, 0),
    gain: float = 1.0,
) -> Tensor:
    """Up-samples by zeros, pads, filters along both axes, decimates.

    Under autocast the result has autocast's type, as a convolution's does; the kernel sums half
    precision in float32.

    Args:
        x: images or features.
        filter: taps, applied along both axes.
        up: up-sampling factor.
        down: down-sampling factor.
        padding: zeros before and after, counted on the up-sampled grid; negative crops.
        gain: factor on the result (the official code's up-sampling uses up * up).

    Returns:
        [N, C, H', W'] with H' = (H * up + sum(padding) - T) // down + 1.

    Raises:
        ValueError: if the padded input is smaller than the filter.
    """
    size = filter.numel()
    height, width = (side * up + sum(padding) for side in x.shape[2:])
    if min(height, width) < size:
        raise ValueError(f"padded input is {height}x{width}, smaller than the {size} filter taps")
    if kernels.usable(x) and not filter.requires_grad:
        return _upfirdn2d_kernel(x, filter, up, down, padding, gain)
    return upfirdn2d_reference(x, filter, up, down, padding, gain)


def upfirdn2d_reference(
    x: Tensor,  # [N, C, H, W]
    filter: Tensor,  # [T]
    up: int,
    down: int,
    padding: Padding,
    gain: float,
) -> Tensor:
    """Defines `upfirdn2d` by torch's own convolutions, for every device."""
    size = filter.numel()
    kernel = (torch.outer(filter, filter) * gain).to(x.dtype).expand(x.shape[1], 1, size, size)
    if up == 1:
        return _filter_and_decimate(x, kernel, down, padding)
    return _interpolate(x, kernel, up, padding)[:, :, ::down, ::down]


def _upfirdn2d_kernel(
    x: Tensor, filter: Tensor, up: int, down: int, padding: Padding, gain: float
) -> Tensor:
    from clcae.ops import library

    if x.dtype != torch.float64 and torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    taps = filter.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    if taps.numel() <= AT_ONCE:
        return library.upfirdn2d(
            x, taps, (up, up), (down, down), (*padding, *padding), float(gain), False
        )
    x = library.upfirdn2d(x, taps[:, None], (up, 1), (down, 1), (*padding, 0, 0), 1.0, False)
    return library.upfirdn2d(
        x, taps[None], (1, up), (1, down), (0, 0, *padding), float(gain), False
    )


def _filter_and_decimate(x: Tensor, kernel: Tensor, down: int, padding: Padding) -> Tensor:
    """Filters by a strided depthwise convolution, which computes the kept samples only."""
    shared = max(min(padding), 0)
    if padding != (shared, shared):
        x = F.pad(x, (padding[0] - shared, padding[1] - shared) * 2)
    kernel = kernel.flip(2, 3)
    return F.conv2d(x, kernel, stride=down, padding=shared, groups=x.shape[1])


def _interpolate(x: Tensor, kernel: Tensor, up: int, padding: Padding) -> Tensor:
    """Up-samples by a transposed depthwise convolution, without inserting zeros."""
    size = kernel.shape[-1]
    # The full result starts size - 1 samples before an unpadded one; it lacks trailing zeros.
    before, after = size - 1 - padding[0], size - up - padding[1]
    shared = max(min(before, after), 0)
    x = F.conv_transpose2d(x, kernel, stride=up, padding=shared, groups=x.shape[1])
    if (before, after) != (shared, shared):
        x = F.pad(x, (shared - before, shared - after) * 2)
    return x


def upsample2d(x: Tensor, filter: Tensor) -> Tensor:
    """Doubles the resolution, as the synthesis network's skip does: [N, C, 2H, 2W]."""
    size = filter.numel()
    return upfirdn2d(x, filter, up=2, padding=((size + 1) // 2, (size - 2) // 2), gain=4.0)
