"""Measures the most memory that a call needs beyond what was there before it.

On a CPU that is the peak of the resident set of the process, minus what it held before the call. On
Linux the peak is reset first; elsewhere building the networks may have set it already. On a GPU it
is the peak of torch's allocator.
"""

import contextlib
import ctypes
import gc
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.timing import Call, wait

MIB = 1 << 20


@dataclass(frozen=True)
class Peak:
    """Peak memory in bytes."""

    above: int  # beyond what was there before the call
    whole: int  # with weights, and on a CPU with the interpreter and its libraries


def peak_of(call: Call, device: torch.device) -> Peak:
    """Measures the peak of one call in this process."""
    release()
    if device.type == "cuda":
        wait(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        wait(device)
        whole = torch.cuda.max_memory_allocated(device)
        return Peak(above=whole - before, whole=whole)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # lowers the recorded peak to what is held
    before = _highest()
    call()
    whole = _highest()
    return Peak(above=max(whole - before, 0), whole=whole)


def release() -> None:
    """Gives memory that this process no longer uses back to the system."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError, TypeError):  # where there is glibc
        ctypes.CDLL(None).malloc_trim(0)


def available() -> int | None:
    """Returns the bytes that are free without swapping; None if the system does not tell."""
    try:
        entries = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kib = [int(entry.split()[1]) for entry in entries if entry.startswith("MemAvailable")]
    return kib[0] * 1024 if kib else None


def total() -> int | None:
    """Returns the bytes of the machine; None if the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None


def _highest() -> int:
    try:
        entries = Path("/proc/self/status").read_text().splitlines()
        return next(int(entry.split()[1]) for entry in entries if "VmHWM" in entry) * 1024
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
