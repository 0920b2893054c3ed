"""The kernels' device functions on the CPU, for tests where there is no GPU."""

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from clcae.ops.kernels import SOURCES

EMULATION = Path(__file__).parent / "emulation.cpp"
ELEMENTS = {torch.float16: 0, torch.bfloat16: 1, torch.float32: 2, torch.float64: 3}


class BiasActCall(ctypes.Structure):
    _fields_ = (
        *[(name, ctypes.c_void_p) for name in ("x", "bias", "noise", "result", "y")],
        *[(name, ctypes.c_int64) for name in ("size", "outer", "inner")],
        *[(name, ctypes.c_double) for name in ("slope", "gain", "clamp")],
        *[(name, ctypes.c_int32) for name in ("channels_last", "own_noise", "element")],
    )


class Upfirdn2dCall(ctypes.Structure):
    _fields_ = (
        *[(name, ctypes.c_void_p) for name in ("x", "filter", "y")],
        *[
            (name, ctypes.c_int64)
            for name in (
                *("samples", "channels", "in_height", "in_width", "out_height", "out_width"),
                *("stride_sample", "stride_channel", "stride_y", "stride_x", "taps_y", "taps_x"),
                *("up_y", "up_x", "down_y", "down_x", "pad_y", "pad_x"),
            )
        ],
        ("gain", ctypes.c_double),
        *[(name, ctypes.c_int32) for name in ("separable", "flip", "channels_last", "element")],
    )


def is_channels_last(x: Tensor) -> bool:
    last = torch.channels_last
    return x.ndim == 4 and x.is_contiguous(memory_format=last) and not x.is_contiguous()


def guarded(x: Tensor, shift: int = 0) -> Tensor:
    """Copies a tensor into memory surrounded by nan, `shift` elements off alignment."""
    last = is_channels_last(x)
    flat = x.permute(0, 2, 3, 1).reshape(-1) if last else x.reshape(-1)
    memory = torch.full([x.numel() + 128], torch.nan, dtype=x.dtype)
    inner = memory[64 + shift : 64 + shift + x.numel()]
    inner.copy_(flat)
    if last:
        n, c, h, w = x.shape
        return inner.view(n, h, w, c).permute(0, 3, 1, 2)
    return inner.view(x.shape)


def check_guards(y: Tensor) -> None:
    """Checks that nothing beside a guarded result was written."""
    memory = torch.empty(0, dtype=y.dtype).set_(y.untyped_storage())
    start = y.storage_offset()
    assert memory[:start].isnan().all() and memory[start + y.numel() :].isnan().all()


class Emulator:
    """The operators of clcae/ops/library.py, as csrc/library.cpp prepares their calls."""

    def __init__(self, library: Path) -> None:
        self.library = ctypes.CDLL(str(library))
        self.calls = 0
        self.forms: list[int] = []
        self.wide_index = False  # the 64-bit form of the same code
        self.general = False  # upfirdn2d without its fast forms
        self.shift = 0  # elements by which memory is misaligned

    def bias_act(
        self,
        x: Tensor,
        bias: Tensor | None,
        noise: Tensor | None,
        dim: int,
        slope: float,
        gain: float,
        clamp: float | None,
    ) -> Tensor:
        last = dim == 1 and is_channels_last(x)
        x = guarded(x if last else x.contiguous(), self.shift)
        y = guarded(torch.full_like(x, torch.nan), self.shift)
        channels, pixels = x.shape[dim], x.shape[dim + 1 :].numel()
        call = BiasActCall(x=x.data_ptr(), y=y.data_ptr(), size=x.numel(), slope=slope, gain=gain)
        call.clamp, call.element = -1.0 if clamp is None else clamp, ELEMENTS[x.dtype]
        call.channels_last = last or pixels == 1
        call.outer, call.inner = (pixels, channels) if call.channels_last else (channels, pixels)
        bias = None if bias is None else bias.contiguous()
        noise = None if noise is None else noise.contiguous()
        if bias is not None:
            call.bias = bias.data_ptr()
        if noise is not None:
            call.noise, call.own_noise = noise.data_ptr(), noise.numel() > pixels
        assert not self.library.emulate_bias_act(ctypes.byref(call), 0, self.wide_index)
        self.calls += 1
        check_guards(y)
        return y

    def bias_act_backward(
        self, grad: Tensor, result: Tensor, slope: float, gain: float, clamp: float | None
    ) -> Tensor:
        form = torch.channels_last if is_channels_last(result) else torch.contiguous_format
        grad = guarded(grad.contiguous(memory_format=form), self.shift)
        result = guarded(result.contiguous(memory_format=form), self.shift)
        y = guarded(torch.full_like(result, torch.nan), self.shift)
        call = BiasActCall(x=grad.data_ptr(), result=result.data_ptr(), y=y.data_ptr())
        call.size, call.outer, call.inner = y.numel(), 1, y.numel()
        call.slope, call.gain, call.clamp = slope, gain, -1.0 if clamp is None else clamp
        call.element = ELEMENTS[y.dtype]
        assert not self.library.emulate_bias_act(ctypes.byref(call), 1, self.wide_index)
        self.calls += 1
        check_guards(y)
        return y

    def upfirdn2d(
        self,
        x: Tensor,
        filter: Tensor,
        up: Sequence[int],
        down: Sequence[int],
        padding: Sequence[int],
        gain: float,
        flip: bool,
    ) -> Tensor:
        last = is_channels_last(x)
        if last or x.is_contiguous():
            x = guarded(x, self.shift)
        filter = filter.contiguous()
        taps = filter.shape[0], filter.shape[-1]
        high = (x.shape[2] * up[0] + padding[0] + padding[1] - taps[0]) // down[0] + 1
        wide = (x.shape[3] * up[1] + padding[2] + padding[3] - taps[1]) // down[1] + 1
        y = torch.full([*x.shape[:2], high, wide], torch.nan, dtype=x.dtype)
        form = torch.channels_last if last else torch.contiguous_format
        y = guarded(y.to(memory_format=form), self.shift)
        call = Upfirdn2dCall(
            *(x.data_ptr(), filter.data_ptr(), y.data_ptr()),
            *(*x.shape, high, wide, *x.stride(), *taps, *up, *down, padding[0], padding[2]),
            gain,
            *(filter.ndim == 1, flip, last, ELEMENTS[x.dtype]),
        )
        chosen = 0 if self.general else self.library.upfirdn2d_form(ctypes.byref(call))
        assert not self.library.emulate_upfirdn2d(ctypes.byref(call), chosen, self.wide_index)
        self.calls += 1
        self.forms.append(chosen)
        check_guards(y)
        return y


@pytest.fixture(scope="session")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiles the device functions by g++ with checks of undefined behaviour."""
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    library = tmp_path_factory.mktemp("emulation") / "emulation.so"
    checks = ["-fsanitize=undefined", "-Wall", "-Werror", "-Wno-unknown-pragmas"]
    command = ["g++", "-std=c++17", "-O1", *checks, "-shared", "-fPIC", f"-I{SOURCES}"]
    subprocess.run([*command, str(EMULATION), "-o", str(library)], check=True)
    return library


@pytest.fixture
def emulator(emulation: Path) -> Emulator:
    return Emulator(emulation)
