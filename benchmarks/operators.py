"""Cases of the operators: each against its reference and against its plain form.

On a GPU also in float16, and against the reference as torch.compile makes it. What an operator
moves is what it cannot do without: its inputs read once and its result written once.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.case import Case, Ratio, Variant
from benchmarks.networks import Networks
from benchmarks.timing import Call
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


def operator_cases(networks: Networks, *, quick: bool) -> Iterator[Case]:
    """bias_act and resampling by the bytes they move, modulated convolutions by operations."""
    types = [torch.float32, torch.float16] if networks.device.type == "cuda" else [torch.float32]
    for dtype in types:
        for channels, side in QUICK_SHAPES if quick else SHAPES:
            yield _activation(networks, channels, side, dtype)
            yield _smoothing(networks, channels, side, dtype)
            yield _enlarging(networks, channels, side // 2, dtype)
        for channels, side in QUICK_CONVOLUTIONS if quick else CONVOLUTIONS:
            yield _convolution(networks, channels, side, dtype)
            yield _enlarging_convolution(networks, channels, side, dtype)


def _activation(networks: Networks, channels: int, side: int, dtype: torch.dtype) -> Case:
    x = _features(networks, channels, side, dtype)
    bias, noise = torch.ones_like(x[0, :, 0, 0]), torch.randn_like(x[:, :1])
    dense, spent = x.contiguous(), x.clone()

    def plain() -> Tensor:
        return F.leaky_relu(dense + noise + bias[:, None, None], 0.2) * GAIN

    ways: Ways = {
        "clcae": lambda: bias_act(x, bias, activation="lrelu", noise=noise),
        # As the networks call it; the gain of 1 keeps what is overwritten again and again finite.
        IN_PLACE: lambda: bias_act_(spent, bias, activation="lrelu", noise=noise, gain=1.0),
        "reference": lambda: bias_act_reference(x, bias, noise, "lrelu", GAIN, None, 1),
        "textbook": plain,
    }
    moved = (2 * x.numel() + noise.numel()) * x.element_size()
    return _case(networks, "noise, bias, leaky ReLU", x, ways, moved=moved)


def _smoothing(networks: Networks, channels: int, side: int, dtype: torch.dtype) -> Case:
    """The filter that follows an enlarging convolution."""
    x = _features(networks, channels, side + 1, dtype)
    filter, dense, book = low_pass().to(networks.device), x.contiguous(), networks.textbook
    ways: Ways = {
        "clcae": lambda: upfirdn2d(x, filter, padding=(1, 1), gain=4.0),
        "reference": lambda: upfirdn2d_reference(x, filter, 1, 1, (1, 1), 4.0),
    }
    if book is not None:
        ways["textbook"] = partial(book.filtered, dense, 4.0 * book.square_kernel().to(x), (1, 1))
    moved = (x.numel() + channels * side**2) * x.element_size()
    return _case(networks, "FIR", x, ways, moved=moved)


def _enlarging(networks: Networks, channels: int, side: int, dtype: torch.dtype) -> Case:
    x = _features(networks, channels, side, dtype)
    filter, dense, book = low_pass().to(networks.device), x.contiguous(), networks.textbook
    ways: Ways = {
        "clcae": lambda: upfirdn2d(x, filter, up=2, padding=(2, 1), gain=4.0),
        "reference": lambda: upfirdn2d_reference(x, filter, 2, 1, (2, 1), 4.0),
    }
    if book is not None:
        ways["textbook"] = partial(book.upsampled, dense, book.square_kernel().to(x))
    moved = 5 * x.numel() * x.element_size()
    return _case(networks, "FIR, up 2", x, ways, moved=moved)


def _convolution(networks: Networks, channels: int, side: int, dtype: torch.dtype) -> Case:
    x = _features(networks, channels, side, dtype)
    weight, styles, dense, book = *_modulation(x), x.contiguous(), networks.textbook
    ways: Ways = {"clcae": lambda: modulated_conv2d(x, weight, styles)}
    if book is not None:
        ways["textbook"] = partial(
            book.modulated_convolution, dense, weight, styles, demodulate=True
        )
    count = 2 * 9 * channels**2 * side**2
    return _case(networks, "modulated 3x3 convolution", x, ways, operations=count)


def _enlarging_convolution(
    networks: Networks, channels: int, side: int, dtype: torch.dtype
) -> Case:
    x = _features(networks, channels, side, dtype)
    weight, styles, dense, book = *_modulation(x), x.contiguous(), networks.textbook
    filter = low_pass().to(networks.device)
    ways: Ways = {
        "clcae": lambda: modulated_conv2d(x, weight, styles, resample="up", filter=filter)
    }
    if book is not None:
        kernel = book.square_kernel().to(x)
        ways["textbook"] = partial(book.modulated_convolution_up, dense, weight, styles, kernel)
    count = 2 * 9 * channels**2 * side**2
    return _case(networks, "modulated 3x3 convolution, up 2", x, ways, operations=count)


def _features(networks: Networks, channels: int, side: int, dtype: torch.dtype) -> Tensor:
    """As they are within synthesis, [1, channels, side, side]."""
    x = torch.randn(1, channels, side, side, device=networks.device, dtype=dtype)
    return x.contiguous(memory_format=torch.channels_last)


def _modulation(x: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [C, C, 3, 3] and styles [1, C] for features [1, C, H, W]."""
    channels = x.shape[1]
    weight = torch.randn(channels, channels, 3, 3, device=x.device, dtype=x.dtype)
    return weight / (9 * channels) ** 0.5, 1.0 + 0.1 * torch.randn_like(x[:, :, 0, 0])


def _case(
    networks: Networks,
    name: str,
    x: Tensor,
    ways: Mapping[str, Callable[[], object]],
    *,
    operations: float | None = None,
    moved: float | None = None,
) -> Case:
    prepare = {way: partial(_ready, call) for way, call in ways.items()}
    wanted = networks.device.type == "cuda" or networks.compiled is not None
    if wanted and "reference" in ways:
        prepare["reference (compiled)"] = partial(_compiled, ways["reference"])
    kind = str(x.dtype).removeprefix("torch.")
    return Case(
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


def _ready(call: Callable[[], object]) -> Call:
    return torch.no_grad()(call)


def _compiled(call: Callable[[], object]) -> Call:
    """Compiled before it is timed."""
    fast: Call = torch.no_grad()(torch.compile(call))
    fast()
    return fast
