"""Describes the machine, and measures what it reaches where nothing but the hardware limits it."""

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.memory import total
from benchmarks.timing import Call, interleaved

# Channels and sides of 3x3 convolutions in synthesis at 1024 px; all have the same arithmetic.
CONVOLUTIONS = ((512, 64), (256, 128), (128, 256), (64, 512), (32, 1024))
SMALL_CONVOLUTIONS = ((512, 16), (256, 32), (64, 64))
LIMIT = 1.0  # second for each


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Lists the hardware and the versions that figures depend on."""
    memory, cuda = total(), device.type == "cuda"
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
        "gpu": torch.cuda.get_device_name(device) if cuda else None,
    }
    if cuda:
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
def measure_ceilings(device: torch.device, *, small: bool) -> dict[str, float]:
    """Measures the best 3x3 convolution, a matrix product and a copy, in float32.

    Returns "convolution" and "product" in GFLOP/s, "copy" in GB/s read and written: the best of
    several repeats. `small` takes sizes of a second instead of some.
    """
    side = (512 if small else 2048) if device.type == "cpu" else 8192
    numbers = 1 << ((22 if small else 26) if device.type == "cpu" else 28)
    first, second = torch.randn(2, side, side, device=device)
    source = torch.randn(numbers, device=device)
    target = torch.empty_like(source)

    def rate(call: Call, amount: float) -> float:
        limit = LIMIT / 4 if small else LIMIT
        times = interleaved({"": call}, device=device, limit=limit, warmed=("",))[""]
        return amount / min(times) / 1e9

    return {
        "convolution": max(
            rate(convolution(*size, device), convolution_operations(*size))
            for size in (SMALL_CONVOLUTIONS if small else CONVOLUTIONS)
        ),
        "product": rate(lambda: first @ second, 2 * side**3),
        "copy": rate(lambda: target.copy_(source), 8 * numbers),
    }


def convolution(channels: int, resolution: int, device: torch.device) -> Call:
    """Makes a call of a plain 3x3 convolution, in the layout that is fastest."""
    x = torch.randn(1, channels, resolution, resolution, device=device)
    weight = torch.randn(channels, channels, 3, 3, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    weight = weight.contiguous(memory_format=torch.channels_last)
    return torch.no_grad()(lambda: F.conv2d(x, weight, padding=1))


def convolution_operations(channels: int, resolution: int) -> int:
    """Counts the operations of `convolution`, a multiplication with its addition as 2."""
    return 2 * 9 * channels**2 * resolution**2
