"""Groups of the operators: each against its reference and against its plain form.

On a GPU also in float16, and against the reference as torch.compile makes it. The bytes that an
operator has to move are its inputs, read once, and its result, written once.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measurement import Group, Ratio, Variant
from benchmarks.network_cache import NetworkCache
from benchmarks.timing import Call
from benchmarks.yardstick import synthesis as book
from clcae.ops import bias_act, bias_act_, low_pass, modulated_conv2d, upfirdn2d
from clcae.ops.bias_act import bias_act_reference
from clcae.ops.upfirdn2d import upfirdn2d_reference

SHAPES = ((512, 64), (128, 256), (32, 1024))  # channels and side of features at 1024 px
QUICK_SHAPES = ((512, 16),)
CONVOLUTIONS = ((512, 64), (128, 256))  # channels and side of the input
QUICK_CONVOLUTIONS = ((512, 16),)
GAIN = 2.0**0.5
IN_PLACE = "clcae (in place)"

Ways = dict[str, Callable[[], object]]


def operator_groups(networks: NetworkCache, *, quick: bool) -> Iterator[Group]:
    """Measures bias_act and resampling by bytes moved, modulated convolutions by operations."""
    types = [torch.float32, torch.float16] if networks.device.type == "cuda" else [torch.float32]
    for dtype in types:
        for channels, side in QUICK_SHAPES if quick else SHAPES:
            yield _activation(networks, channels, side, dtype)
            yield _smoothing(networks, channels, side, dtype)
            yield _enlarging(networks, channels, side // 2, dtype)
        for channels, side in QUICK_CONVOLUTIONS if quick else CONVOLUTIONS:
            yield from _convolutions(networks, channels, side, dtype)


def _activation(networks: NetworkCache, channels: int, side: int, dtype: torch.dtype) -> Group:
    x = _features(networks, channels, side, dtype)
    bias, noise = torch.ones_like(x[0, :, 0, 0]), torch.randn_like(x[:, :1])
    dense, spent = x.contiguous(), x.clone()
    ways: Ways = {
        "clcae": lambda: bias_act(x, bias, activation="lrelu", noise=noise),
        # As the networks call it; the gain of 1 keeps what is overwritten again and again finite.
        IN_PLACE: lambda: bias_act_(spent, bias, activation="lrelu", noise=noise, gain=1.0),
        "reference": lambda: bias_act_reference(x, bias, noise, "lrelu", GAIN, None, 1),
        "textbook": lambda: F.leaky_relu(dense + noise + bias[:, None, None], 0.2) * GAIN,
    }
    moved = (2 * x.numel() + noise.numel()) * x.element_size()
    return _group(networks, "noise, bias, leaky ReLU", x, ways, moved=moved)


def _smoothing(networks: NetworkCache, channels: int, side: int, dtype: torch.dtype) -> Group:
    """Measures the filter that follows an enlarging convolution."""
    x = _features(networks, channels, side + 1, dtype)
    filter, dense, kernel = low_pass().to(x.device), x.contiguous(), book.square_kernel().to(x)
    ways: Ways = {
        "clcae": lambda: upfirdn2d(x, filter, padding=(1, 1), gain=4.0),
        "reference": lambda: upfirdn2d_reference(x, filter, 1, 1, (1, 1), 4.0),
        "textbook": lambda: book.filtered(dense, 4.0 * kernel, (1, 1)),
    }
    moved = (x.numel() + channels * side**2) * x.element_size()
    return _group(networks, "FIR", x, ways, moved=moved)


def _enlarging(networks: NetworkCache, channels: int, side: int, dtype: torch.dtype) -> Group:
    x = _features(networks, channels, side, dtype)
    filter, dense, kernel = low_pass().to(x.device), x.contiguous(), book.square_kernel().to(x)
    ways: Ways = {
        "clcae": lambda: upfirdn2d(x, filter, up=2, padding=(2, 1), gain=4.0),
        "reference": lambda: upfirdn2d_reference(x, filter, 2, 1, (2, 1), 4.0),
        "textbook": lambda: book.upsampled(dense, kernel),
    }
    moved = 5 * x.numel() * x.element_size()
    return _group(networks, "FIR, up 2", x, ways, moved=moved)


def _convolutions(
    networks: NetworkCache, channels: int, side: int, dtype: torch.dtype
) -> Iterator[Group]:
    x = _features(networks, channels, side, dtype)
    dense, filter, kernel = x.contiguous(), low_pass().to(x.device), book.square_kernel().to(x)
    weight = torch.randn(channels, channels, 3, 3, device=x.device, dtype=dtype)
    weight, styles = weight / (9 * channels) ** 0.5, 1.0 + 0.1 * torch.randn_like(x[:, :, 0, 0])
    count = 2 * 9 * channels**2 * side**2
    ways: Ways = {
        "clcae": lambda: modulated_conv2d(x, weight, styles),
        "textbook": lambda: book.modulated_convolution(dense, weight, styles, demodulate=True),
    }
    yield _group(networks, "modulated 3x3 convolution", x, ways, operations=count)
    ways = {
        "clcae": lambda: modulated_conv2d(x, weight, styles, resample="up", filter=filter),
        "textbook": lambda: book.modulated_convolution_up(dense, weight, styles, kernel),
    }
    yield _group(networks, "modulated 3x3 convolution, up 2", x, ways, operations=count)


def _features(networks: NetworkCache, channels: int, side: int, dtype: torch.dtype) -> Tensor:
    """Draws features [1, channels, side, side] in the layout of synthesis."""
    x = torch.randn(1, channels, side, side, device=networks.device, dtype=dtype)
    return x.contiguous(memory_format=torch.channels_last)


def _group(
    networks: NetworkCache,
    name: str,
    x: Tensor,
    ways: Mapping[str, Callable[[], object]],
    *,
    operations: float | None = None,
    moved: float | None = None,
) -> Group:
    prepare: dict[str, Callable[[], Call]] = {
        way: partial(torch.no_grad(), call) for way, call in ways.items()
    }
    if "reference" in ways and (networks.compile or networks.device.type == "cuda"):
        prepare["reference (compiled)"] = partial(_compiled, ways["reference"])
    kind = str(x.dtype).removeprefix("torch.")
    return Group(
        name=f"{name}, {kind} {'x'.join(map(str, x.shape))}",
        variants={
            way: Variant(prepare=made, operations=operations, moved=moved)
            for way, made in prepare.items()
        },
        ratios=[
            Ratio([other], [own])
            for own in ("clcae", IN_PLACE)
            for other in prepare
            if own in prepare and other not in ("clcae", IN_PLACE)
        ],
    )


def _compiled(call: Callable[[], object]) -> Call:
    fast: Call = torch.no_grad()(torch.compile(call))
    fast()  # compiles before it is timed
    return fast
