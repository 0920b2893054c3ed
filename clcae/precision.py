"""The precision of inference: float32, or bfloat16 where the processor computes in it.

What takes the time of an inference, convolutions and what lies between them, is computed in the
precision; weights in files, codes, features of inversions, pictures and all that is measured of
them stay float32. `InversionMethod.for_inference` and `Generator.for_inference` return the form of
a network that computes so. On CUDA "bfloat16" computes the generator's four highest resolutions in
float16, as NVIDIA's own code does (`num_fp16_res` of stylegan2-ada-pytorch), and all else in
bfloat16.
"""

from typing import Literal, get_args

import torch

Precision = Literal["float32", "bfloat16"]
CHOICES = (*get_args(Precision), "auto")


def bfloat16_lacking(device: torch.device) -> str | None:
    """Returns why bfloat16 does not pay on a device, or None where it does."""
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
    return f"bfloat16 is not used on {device.type}"


def resolve(choice: str, device: torch.device) -> tuple[Precision, str | None]:
    """Chooses the precision in which a device computes.

    Args:
        choice: "float32"; "bfloat16"; or "auto", which is bfloat16 where the device computes in it.
        device: where the network runs.

    Returns:
        The precision, and a line for the user, which says what "auto" chose, or why bfloat16 is not
        used; None where he has what he asked for.

    Raises:
        ValueError: if the choice is another.
    """
    if choice not in CHOICES:
        raise ValueError(f"precision is {choice!r}, expected {', '.join(CHOICES[:-1])} or auto")
    if choice == "float32":
        return "float32", None
    lacking = bfloat16_lacking(device)
    if lacking is not None:
        return "float32", f"computing in float32, since {lacking}"
    return "bfloat16", "computing in bfloat16" if choice == "auto" else None
