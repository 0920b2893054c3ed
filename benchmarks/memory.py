"""The most memory a call needs beyond what was there before it.

On a CPU that is the peak of the resident set of a process of its own, minus what it held once
everything was imported and built. On Linux the peak is reset before the call; elsewhere it is that
of the whole process, which building may have set already. On a GPU it is that of torch's allocator.
"""

import contextlib
import ctypes
import gc
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.timing import Call, wait

MIB = 1 << 20
PATIENCE = 600.0  # seconds for a child


@dataclass(frozen=True)
class Peak:
    """In bytes."""

    above: int  # beyond what was there before the call
    whole: int  # with weights, and on a CPU with the interpreter and its libraries


class ChildError(RuntimeError):
    """A child process did not measure, in one line."""


def peak_of(call: Call, device: torch.device) -> Peak:
    """The peak of one call, here and now."""
    release()
    if device.type == "cuda":
        wait(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        wait(device)
        whole = torch.cuda.max_memory_allocated(device)
        return Peak(above=whole - before, whole=whole)
    before = _reset()
    call()
    whole = _highest()
    return Peak(above=max(whole - before, 0), whole=whole)


def peak_in_child(command: Sequence[str]) -> Peak:
    """The peak that a command prints as its last line, as `line` has it.

    Raises:
        ChildError: it ended otherwise, with what it said last.
    """
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise ChildError(f"took more than {PATIENCE:.0f} s") from None
    said = (ran.stdout if ran.returncode == 0 else ran.stderr).strip().splitlines()
    try:
        return Peak(**json.loads(said[-1]))
    except (IndexError, TypeError, ValueError):
        last = said[-1] if said else "no word"
        raise ChildError(f"its process ended with {ran.returncode}: {last}") from None


def line(peak: Peak) -> str:
    """What a child prints."""
    return json.dumps({"above": peak.above, "whole": peak.whole})


def release() -> None:
    """Gives back to the system what this process no longer uses."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError, TypeError):  # glibc's, where that is there
        ctypes.CDLL(None).malloc_trim(0)


def available() -> int | None:
    """Bytes that can be had without swapping; None where the system does not tell."""
    try:
        entries = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kib = [int(entry.split()[1]) for entry in entries if entry.startswith("MemAvailable")]
    return kib[0] * 1024 if kib else None


def total() -> int | None:
    """Bytes of the machine; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None


def _reset() -> int:
    """Lowers the recorded peak to what is held now, where that can be done; returns it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _highest()


def _highest() -> int:
    try:
        entries = Path("/proc/self/status").read_text().splitlines()
        return next(int(entry.split()[1]) for entry in entries if "VmHWM" in entry) * 1024
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
