"""Codes from elsewhere: an array of Z, Z+, W or W+ in a file, to be edited without a picture.

| file | what it is |
| --- | --- |
| .npy | the array |
| .npz, .pt, .safetensors | the only array in it, or the one of a customary name |

[N, D] are N codes of one row, [N, L, D] are N codes with a row for each of the generator's layers;
[D] and [L, D] are one code.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clcae.arrays import read_npy, read_npz
from clcae.construction import is_finite
from clcae.methods.interface import Inversion
from clcae.pretrained.contents import check_memory, tensor_of, tensors_of
from clcae.quoting import listing, one_line
from clcae.stylegan2 import Generator, LatentSpace, broadcast_rows, normalize_z
from clcae.unpickling.torch_file import read_torch_file
from clcae.weight_file import is_plain, read_plain

SUFFIXES = (".npy", ".npz", ".pt", ".pth", ".safetensors")
NAMES = ("codes", "latents", "latent", "w_plus", "wplus", "w", "ws", "z", "arr_0")
LARGEST_FILE = 1 << 30  # bytes
MOST_CODES = 100_000
LEAST_LENGTH = 0.9  # mean square of a row of Z once it is normalised: of all but the least, 1


def is_codes_file(path: Path) -> bool:
    """Returns whether a file is one of arrays by its suffix, and none that this code wrote."""
    suffix = path.suffix.lower()
    return suffix in SUFFIXES and (suffix != ".safetensors" or is_plain(path))


def read_codes(path: Path, generator: Generator, *, space: LatentSpace | None) -> list[Inversion]:
    """Reads the codes of a file, each as an inversion of one picture, on the CPU.

    Args:
        path: the file.
        generator: whose codes they are.
        space: their latent space. None takes W for codes of one row, W+ for those of many.

    Raises:
        ValueError: if the file holds something else, codes of another generator, or [L, D] where L
            is the generator's number of rows, which may be one code or many; in one line.
    """
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"more than {LARGEST_FILE >> 30} GiB, too large for codes")
    codes = _shaped(_array(path), generator, space)
    if space is None:
        space = LatentSpace.W if codes.shape[1] == 1 else LatentSpace.W_PLUS
    if codes.shape[1] > 1 and not space.has_rows:
        raise ValueError(f"holds codes of {codes.shape[1]} rows, which are none of {space}")
    rows = broadcast_rows(codes[:, 0], generator.num_codes) if codes.shape[1] == 1 else codes
    return [Inversion(codes=row[None], space=space) for row in rows]


def _array(path: Path) -> Tensor:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        found: Any = _from_numpy(read_npy(path))
    elif suffix == ".npz":
        found = {name: _from_numpy(array) for name, array in read_npz(path).items()}
    elif suffix == ".safetensors":
        found = read_plain(path)
    else:
        found = read_torch_file(path)
        parts = found if isinstance(found, Mapping) else {"": found}
        check_memory(parts.values(), size=path.stat().st_size)
        tensors = {key: tensor_of(str(key), value) for key, value in tensors_of(parts).items()}
        found = tensors if isinstance(found, Mapping) else tensors.get("")
    if isinstance(found, Mapping):
        names = [*found] if len(found) == 1 else [name for name in NAMES if name in found][:1]
        if not names:
            held = listing([*found], 6) or "no array"
            raise ValueError(f"holds {held}: expected one array of codes, or one called codes")
        found = found[names[0]]
    if not isinstance(found, Tensor):
        raise ValueError("holds no array of codes, [N, D] or [N, L, D]")
    return found


def _from_numpy(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))


def _shaped(codes: Tensor, generator: Generator, space: LatentSpace | None) -> Tensor:
    """Checks codes and returns them as [N, 1, D] or [N, L, D], float32."""
    shape, rows = tuple(codes.shape), generator.num_codes
    width = generator.w_dim if space is None or space.is_mapped else generator.z_dim
    if codes.ndim not in (1, 2, 3) or shape[-1] != width or not codes.numel():
        raise ValueError(
            f"holds an array of shape {shape}, expected codes [N, {width}] or [N, {rows}, {width}]"
        )
    if not codes.is_floating_point():
        raise ValueError(f"holds {one_line(codes.dtype)}, expected codes of floating point")
    if codes.ndim == 2 and len(codes) == rows and space is None:
        raise ValueError(
            f"holds an array of shape {shape}: one code with {rows} rows, or {rows} codes of one "
            "row? say --space W+ or --space W"
        )
    if codes.ndim == 1:
        codes = codes[None, None]
    elif codes.ndim == 2:
        one = len(codes) == rows and space is not None and space.has_rows
        codes = codes[None] if one else codes[:, None]
    if codes.shape[1] not in (1, rows) or len(codes) > MOST_CODES:
        raise ValueError(
            f"holds codes of shape {shape}, expected {rows} rows for this generator, and at most "
            f"{MOST_CODES} codes"
        )
    codes = codes.float()
    if not is_finite(codes):
        raise ValueError("holds codes that are NaN or infinite")
    if space is not None and not space.is_mapped:
        lengths = normalize_z(codes).square().mean(dim=-1)
        if not bool((lengths > LEAST_LENGTH).all()):
            raise ValueError(
                f"holds rows of {space} that are zero, or of a size at which the mapping network "
                "takes them for zero: expected about Gaussian numbers"
            )
    return codes
