"""Chooses the device of a command by name."""

import os

import torch


def pick_device(name: str) -> torch.device:
    """Returns the device of this process.

    Args:
        name: "auto" (CUDA, then MPS, then the CPU), "cpu", "cuda", "cuda:1" or "mps". Under
            torchrun "cuda" is the device of the local rank.

    Raises:
        ValueError: if there is no such device.
    """
    if name == "auto":
        name = "cpu"
        if torch.backends.mps.is_available():
            name = "mps"
        if torch.cuda.is_available():
            name = "cuda"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device is {name!r}, expected auto, cpu, cuda, cuda:N or mps") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device is {name!r}, expected auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device is {name!r}, but there is no CUDA device: use device=auto")
        if device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if device.index >= torch.cuda.device_count():
            count = torch.cuda.device_count()
            raise ValueError(f"device is {device}, but there are {count} CUDA devices")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device is 'mps', but this machine has none: use device=auto")
    return device
