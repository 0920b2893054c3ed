"""The public doors: a generator or a method from a file or a name."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clcae.methods.clcae import CLCAE
from clcae.methods.interface import InversionMethod
from clcae.pretrained import rosinality
from clcae.pretrained.assets import asset_path, portraits_generator
from clcae.serialization import load
from clcae.stylegan2 import Generator

SHIPPED = "portraits/"  # "portraits/NAME" is the shipped file NAME
_KNOWN = (CLCAE,)  # imported so that native files find their class by its registered name


def load_generator(source: str | Path) -> Generator:
    """A frozen generator in evaluation mode, on the CPU.

    Args:
        source: "portraits", a native .safetensors file, or a .pt file in the layout of
            rosinality/stylegan2-pytorch (`g_ema`, `latent_avg`). Where the mean latent is missing
            it is computed from 100,000 mapped samples.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is none of these, with what was found.
    """
    if str(source) == "portraits":
        return portraits_generator()
    path = _existing(source, "a generator")
    if path.suffix == ".safetensors":
        generator = load(path, expected=Generator)
    elif path.suffix in (".pt", ".pth"):
        generator = _rosinality(path)
    else:
        raise ValueError(f"{path} ends in {path.suffix!r}, expected .safetensors or .pt")
    return generator.eval().requires_grad_(False)


def load_method(source: str | Path) -> InversionMethod:
    """A trained inversion method in evaluation mode, on the CPU.

    Args:
        source: "portraits/NAME" for a method among the shipped files, or a native .safetensors
            file such as the one a run leaves. No trained method is shipped yet.

    Raises:
        FileNotFoundError: there is no such file or name.
        ValueError: the file holds something else.
    """
    name = str(source)
    if name.startswith(SHIPPED) and not Path(name).exists():
        path = asset_path(name.removeprefix(SHIPPED))
    else:
        path = _existing(source, "a method")
    method = load(path)
    if not isinstance(method, InversionMethod):
        raise ValueError(f"{path} holds a {type(method).__name__}, expected an inversion method")
    return method.eval().requires_grad_(False)


def _existing(source: str | Path, what: str) -> Path:
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file {source}, expected {what}: a path, or a shipped name "
            "(portraits for the generator)"
        )
    return path


def _rosinality(path: Path) -> Generator:
    state = _safe_load(path)
    if not isinstance(state, Mapping) or not isinstance(state.get("g_ema"), Mapping):
        keys = ", ".join(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(f"{path} holds {keys[:200]}, expected g_ema and latent_avg")
    average = state.get("latent_avg")
    if average is not None and not isinstance(average, Tensor):
        raise ValueError(f"{path}: latent_avg is a {type(average).__name__}, expected a tensor")
    return rosinality.generator_from_state(state["g_ema"], average)


def _safe_load(path: Path) -> Any:
    """torch.load that executes nothing."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        RuntimeError,
        EOFError,
        ValueError,
    ) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ValueError(f"{path} is no checkpoint that can be read safely: {reason}") from error
