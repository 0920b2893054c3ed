"""The kernels' arithmetic, compiled for the CPU, against references and textbook forms."""

import itertools
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clcae.ops.bias_act import bias_act_reference
from clcae.ops.kernels import SOURCES

# shape, axis of the channels; odd, prime, shorter than a vector, one element
SHAPES = [
    ((2, 3, 5, 7), 1),
    ((3, 8, 4, 4), 1),
    ((2, 16, 3, 3), 1),
    ((1, 5, 1, 1), 1),
    ((2, 4, 1, 9), 1),
    ((3, 6), 1),
    ((2, 3, 4), 2),
    ((2, 3, 4), 1),
    ((7,), 0),
    ((2, 3, 2, 2, 3), 1),
    ((1, 1, 1, 1), 1),
]
SETTINGS = [  # activation, gain, clamp
    ("linear", 1.0, None),
    ("lrelu", 2.0**0.5, None),
    ("lrelu", -1.5, 0.7),
    ("linear", 0.3, 0.1),
]
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-14, torch.bfloat16: 2**-8}


def slope(activation: str) -> float:
    return 0.2 if activation == "lrelu" else 1.0


def textbook(
    x: Tensor, kernel: Tensor, up: Any, down: Any, padding: Any, gain: float, flip: bool
) -> Tensor:
    """Computes upfirdn2d by its definition, in float64."""
    n, c, h, w = x.shape
    wide = torch.zeros(n, c, h, up[0], w, up[1], dtype=torch.float64)
    wide[:, :, :, 0, :, 0] = x.double()
    wide = F.pad(wide.reshape(n, c, h * up[0], w * up[1]), (*padding[2:], *padding[:2]))
    kernel = kernel if kernel.ndim == 2 else torch.outer(kernel, kernel)
    kernel = (kernel if flip else kernel.flip(0, 1)).double()
    out = F.conv2d(wide.reshape(n * c, 1, *wide.shape[2:]), kernel[None, None])
    return out.reshape(n, c, *out.shape[2:])[:, :, :: down[0], :: down[1]] * gain


def same(value: Tensor, exact: Tensor, dtype: torch.dtype) -> None:
    scale = float(exact.abs().max()) or 1.0
    torch.testing.assert_close(
        value.double(), exact.double(), rtol=0, atol=TOLERANCE[dtype] * scale
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_bias_act_forward_and_backward(
    dtype: torch.dtype, emulator: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    for (shape, dim), (activation, gain, clamp), layout, noisy, wide, shift in itertools.product(
        SHAPES, SETTINGS, ["plain", "last"], ["none", "one", "own"], [False, True], [0, 1]
    ):
        if (layout == "last" or noisy != "none") and (len(shape) != 4 or dim != 1):
            continue
        emulator.wide_index, emulator.shift = wide, shift
        x = torch.randn(shape).to(dtype)
        if layout == "last":
            x = x.contiguous(memory_format=torch.channels_last)
        bias = torch.randn(shape[dim]).to(dtype)
        maps = (shape[0] if noisy == "own" else 1, 1, *shape[2:])
        noise = None if noisy == "none" else torch.randn(maps).to(dtype)
        value = emulator.bias_act(x, bias, noise, dim, slope(activation), gain, clamp)
        exact = x.double().requires_grad_()
        parts = bias.double(), None if noise is None else noise.double()
        expected = bias_act_reference(exact, *parts, activation, gain, clamp, dim)
        same(value, expected.detach(), dtype)
        assert value.stride() == x.stride()

        grad = torch.randn(shape).to(dtype)
        back = emulator.bias_act_backward(grad, value, slope(activation), gain, clamp)
        expected.backward(grad.double())
        near = torch.zeros_like(value, dtype=torch.bool)  # the limit, within rounding
        if clamp is not None:
            free = bias_act_reference(exact.detach(), *parts, activation, gain, None, dim)
            near = (free.abs() - clamp).abs() <= 2 * TOLERANCE[dtype] * clamp
        assert exact.grad is not None
        same(back[~near], exact.grad[~near], dtype)
    assert emulator.calls == 2 * 4 * 4 * (2 * 3 * 6 + 5)  # settings, index x shift, shapes
    assert capfd.readouterr().err == ""  # what the checks of undefined behaviour would say


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_and_infinity_pass_through(dtype: torch.dtype, emulator: Any) -> None:
    x = torch.tensor([[torch.nan, torch.inf, -torch.inf, 1.0] * 5], dtype=dtype)
    for clamp in (None, 2.0):
        expected = bias_act_reference(x, None, None, "lrelu", 1.0, clamp, 1)
        value = emulator.bias_act(x, None, None, 1, 0.2, 1.0, clamp)
        assert torch.equal(value.nan_to_num(9.0), expected.nan_to_num(9.0))
        assert torch.equal(value.isnan(), x.isnan())
    grad = torch.ones_like(x)
    assert torch.isfinite(emulator.bias_act_backward(grad, x, 0.2, 1.0, None)).all()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("layout", ["plain", "last", "strided"])
def test_upfirdn2d_of_any_kind(
    dtype: torch.dtype, layout: str, emulator: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(1)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    filters = [torch.randn(size, dtype=wide) for size in (1, 4, 5, 12)]
    filters += [torch.randn(size, dtype=wide) for size in ((3, 2), (1, 6), (4, 4))]
    factors = [((1, 1), (1, 1)), ((2, 2), (1, 1)), ((1, 1), (2, 2)), ((3, 1), (2, 2))]
    for index, (filter, (up, down), padding, flip) in enumerate(
        itertools.product(
            filters, factors, [(12, 11, 12, 12), (13, 9, -2, 14), (14, -3, 11, 12)], [False, True]
        )
    ):
        emulator.wide_index, emulator.shift = index % 2 == 1, index % 3 % 2
        x = torch.randn(2, 4 if index % 2 else 3, 9, 6).to(dtype)
        if layout == "last":
            x = x.contiguous(memory_format=torch.channels_last)
        if layout == "strided":
            x = torch.randn(2, 4, 9, 13).to(dtype)[:, 1:, :, ::2].transpose(2, 3)
        value = emulator.upfirdn2d(x, filter, up, down, padding, 1.7, flip)
        same(value, textbook(x, filter, up, down, padding, 1.7, flip), dtype)
    assert emulator.calls == len(filters) * 4 * 3 * 2
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["plain", "last"])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2)])
def test_fast_forms_of_upfirdn2d(
    dtype: torch.dtype,
    layout: str,
    up: int,
    down: int,
    emulator: Any,
    capfd: pytest.CaptureFixture[str],
) -> None:
    torch.manual_seed(2)
    filters = torch.tensor([1.0, 2.0, 5.0, 3.0]), torch.randn(4, 4)  # neither is symmetric
    # Several tiles and strips, sizes odd and even; padding before of both parities, and crops.
    sizes = [(33, 75), (64, 68), (40, 131)] if layout == "plain" else [(9, 7), (16, 16)]
    paddings = [
        (2, 1, 2, 1),
        (1, 1, 1, 1),
        (1, 2, 2, 0),
        (-1, 3, -2, 1),
        (5, 0, 0, 6),
        (0, 0, 3, 3),
    ]
    for index, (filter, size, padding) in enumerate(itertools.product(filters, sizes, paddings)):
        x = torch.randn(2, 8 if layout == "last" else 2, *size).to(dtype)
        if layout == "last":
            x = x.contiguous(memory_format=torch.channels_last)
        steps = (up, up), (down, down)
        flip = index % 2 == 1
        emulator.shift = int(layout == "plain" and index % 3 == 0)  # planes take any alignment
        value = emulator.upfirdn2d(x, filter, *steps, padding, 4.0, flip)
        same(value, textbook(x, filter, *steps, padding, 4.0, flip), dtype)
    form = 1 if layout == "plain" else 2
    assert emulator.forms == [form] * len(filters) * len(sizes) * len(paddings)
    assert capfd.readouterr().err == ""


def test_forms_are_chosen_for_what_they_fit(emulator: Any) -> None:
    taps = torch.ones(4)

    def form(x: Tensor, up: int = 1, taps: Tensor = taps) -> int:
        emulator.upfirdn2d(x, taps, (up, up), (1, 1), (2, 1, 2, 1), 1.0, False)
        return int(emulator.forms[-1])

    plain = torch.zeros(1, 8, 40, 40)
    last = plain.contiguous(memory_format=torch.channels_last)
    assert form(plain) == 1 and form(last) == 2 and form(last, up=2) == 2
    assert form(plain[:, :, ::2, :]) == 1  # rows apart: still no copy
    assert form(plain.double(), taps=taps.double()) == 0
    assert form(plain, up=3) == 0 and form(plain, taps=torch.ones(5)) == 0
    assert form(plain[:, :, :8, :8]) == 0  # small
    assert form(last[:, :3]) == 0 and form(plain[:, :, :, ::2]) == 0


def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    program, emulation = tmp_path / "sweep", Path(__file__).parent / "emulation.cpp"
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DSWEEP"]
    command = ["g++", "-std=c++17", "-O1", *checks, f"-I{SOURCES}", str(emulation)]
    try:
        subprocess.run([*command, "-o", str(program)], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no g++")
    ran = subprocess.run([str(program)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 100  # of 400 calls, those in a fast form
