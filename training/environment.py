"""Where a run takes place: commit, versions, device."""

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from training import distributed


def describe(device: torch.device) -> dict[str, Any]:
    """Facts that help to repeat a run elsewhere."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "commit": _commit(),
        "command": sys.argv,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": str(device),
        "device_name": name,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": distributed.world_size(),
    }


def peak_memory(device: torch.device) -> str:
    """The most memory that this process has held so far, in words."""
    unit = 1 if sys.platform == "darwin" else 1024
    text = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30:.2f} GiB"
    if device.type == "cuda":
        text += f", {torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB of the GPU"
    return text


def _commit() -> str | None:
    """The commit of the source, marked where it was changed since; None outside a repository."""
    root = Path(__file__).resolve().parents[1]
    try:
        described = subprocess.run(
            [
                "git",
                "-C",
                str(root),
                "describe",
                "--always",
                "--dirty",
                "--abbrev=40",
                "--exclude=*",
            ],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
