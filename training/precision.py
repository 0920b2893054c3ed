"""Whether a device computes in bfloat16, and the autocast context of a run."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Precision = Literal["float32", "bfloat16"]


def bfloat16_lacking(device: torch.device) -> str | None:
    """Why bfloat16 is no use on the device, or None where it is."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return None
        return f"{torch.cuda.get_device_name(device)} has no bfloat16"
    if device.type == "cpu":
        # Without these instructions it runs, at less than half the speed of float32.
        features = torch.cpu.get_capabilities()
        if features.get("avx512_bf16") or features.get("amx_bf16") or features.get("amx_tile"):
            return None
        return "this CPU has no bfloat16 instructions"
    return f"autocast to bfloat16 is not used on {device.type}"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """The context in which losses are computed."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
