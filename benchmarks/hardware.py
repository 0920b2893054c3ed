"""The machine: what it is called, and what it reaches where nothing but the hardware limits it."""

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.memory import total
from benchmarks.timing import Call, interleaved

# Channels and sides of 3x3 convolutions in synthesis at 1024 px; all have the same arithmetic.
CONVOLUTIONS = ((512, 64), (256, 128), (128, 256), (64, 512), (32, 1024))
SMALL_CONVOLUTIONS = ((512, 16), (256, 32), (64, 64))
LIMIT = 1.0  # second for each


def described(device: torch.device) -> dict[str, Any]:
    """What a figure is worth nothing without."""
    memory = total()
    facts: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": None if memory is None else round(memory / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "clcae": importlib.metadata.version("clcae"),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": str(device),
        "gpu": None,
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["tf32_convolutions"] = torch.backends.cudnn.allow_tf32
        facts["tf32_products"] = torch.backends.cuda.matmul.allow_tf32
    return facts


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else platform.processor() or platform.machine()


@torch.no_grad()
def ceilings(device: torch.device, *, small: bool) -> dict[str, float]:
    """GFLOP/s of the best 3x3 convolution and of a matrix product, GB/s of a copy; float32.

    Args:
        device: Where.
        small: Sizes for a second in place of some.

    Returns:
        "convolution", "product", "copy": the best of several repeats. A copy counts what is read
        and what is written.
    """
    sizes = SMALL_CONVOLUTIONS if small else CONVOLUTIONS
    side = (512 if small else 2048) if device.type == "cpu" else 8192
    numbers = 1 << ((22 if small else 26) if device.type == "cpu" else 28)
    limit = LIMIT / 4 if small else LIMIT
    convolutions = [
        _rate(Convolution(*size, device), Convolution.operations(*size), device, limit)
        for size in sizes
    ]
    return {
        "convolution": max(convolutions) / 1e9,
        "product": _rate(_product(side, device), 2 * side**3, device, limit) / 1e9,
        "copy": _rate(_copy(numbers, device), 8 * numbers, device, limit) / 1e9,
    }


def _rate(call: Call, amount: float, device: torch.device, limit: float) -> float:
    return amount / min(interleaved({"": call}, device=device, limit=limit)[""])


class Convolution:
    """A plain 3x3 convolution without a graph, as a call: as fast as the machine has one."""

    warmed = True  # a ceiling is not what others left of it

    def __init__(self, channels: int, resolution: int, device: torch.device) -> None:
        x = torch.randn(1, channels, resolution, resolution, device=device)
        weight = torch.randn(channels, channels, 3, 3, device=device)
        self._x = x.contiguous(memory_format=torch.channels_last)
        self._weight = weight.contiguous(memory_format=torch.channels_last)

    def __call__(self) -> Tensor:
        """[1, C, R, R]."""
        return F.conv2d(self._x, self._weight, padding=1)

    @staticmethod
    def operations(channels: int, resolution: int) -> int:
        """Of a call, a multiplication with its addition as 2."""
        return 2 * 9 * channels**2 * resolution**2


def _product(side: int, device: torch.device) -> Call:
    first, second = torch.randn(2, side, side, device=device)
    return lambda: first @ second


def _copy(numbers: int, device: torch.device) -> Call:
    source = torch.randn(numbers, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)
