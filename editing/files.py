"""Loading directions from native files and from those of InterFaceGAN, e4e, GANSpace and SeFa.

| file | what it is | directions |
| --- | --- | --- |
| .safetensors | native, any number of them | by their names |
| .npy | a boundary of InterFaceGAN, (1, 512); of F/Z+, (1, 18, 512) | one, by the attribute |
| .pt, a tensor | e4e's, (1, 512) or (1, 18, 512) | one, by the file's name |
| .pt, tensors by name | the same, several | by their names |
| .pt with mean, comp, std; .npz | GANSpace's components | pc0, pc1, ...; and the published edits |
| .pt with eigvec | rosinality's closed_form_factorization.py | sefa0, sefa1, ... |

A boundary is called by the attribute in the file's name. GANSpace's components of Z, which F/Z+
uses, are increments: its script does not take the coordinate out first. Those of W are coordinates.
Nothing in a file is executed, what was saved on a GPU comes to the CPU, and NaN, other shapes and
sizes are refused in one line.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clcae.arrays import read_npy, read_npz
from clcae.pretrained.assets import SHIPPED, asset_path, is_shipped, portraits_generator
from clcae.pretrained.contents import check_memory
from clcae.quoting import one_line
from clcae.serialization import is_native, load
from clcae.stylegan2 import Generator, LatentSpace
from clcae.unpickling.torch_file import read_torch_file
from clcae.unpickling.unpickler import Array
from editing import sefa
from editing.direction_set import MAX_DIRECTIONS, MAX_ROWS, MAX_WIDTH, DirectionSet
from editing.directions import MAX_NAME, Direction
from editing.ganspace import EDITS_BY_FILE, PrincipalComponents

_PCA = {"mean", "comp", "std"}
# {model}_{attribute}[_c_{condition}][_w]_boundary.npy: without _w it is one of Z
_BOUNDARY = re.compile(
    r"(?:.*?_)?((?:pose|smile|age|gender|eyeglasses|quality)(?:_c_[a-z_]+?)?)(_w)?_boundary"
)
# {model}-{class}_{layer}_{estimator}_c{count}_n{samples}[_w][_seed{seed}].npz: the same
_CACHE = re.compile(r".*_c\d+_n\d+(_w)?(_seed\d+)?")


def load_directions(
    source: str | Path,
    *,
    space: LatentSpace | None = None,
) -> dict[str, Direction]:
    """Loads the directions of a file, by name.

    Args:
        source: a file of the table above, "portraits" for the shipped ones, which are of W, or
            "portraits/directions_z" for those of Z.
        space: latent space of an official file's directions, which the file does not name. None is
            Z for a boundary of InterFaceGAN and components of GANSpace that these named without
            "_w", else W.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds something else.
    """
    if is_shipped(source):
        name = "directions" if str(source) == SHIPPED else str(source).removeprefix(f"{SHIPPED}/")
        return load(asset_path(name), expected=DirectionSet).directions()
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; expected directions: .safetensors, .pt, .npy, .npz, or the "
            f"names {SHIPPED} and {SHIPPED}/directions_z"
        )
    try:
        if is_native(path):
            return load(path, expected=DirectionSet).directions()
        start = path.open("rb").read(8)
        if start[:6] == b"\x93NUMPY":
            return _boundary(path, space)
        if path.suffix == ".npz":
            return _components(path, _npz(path), space)
        return _torch_file(path, space)
    except ValueError as error:
        line = one_line(error)
        raise ValueError(line if line.startswith(str(path)) else f"{path}: {line}") from error


def official_directions(
    source: str | Path, *, space: LatentSpace | None = None
) -> dict[str, Direction]:
    """Loads an official file as `load_directions`; ValueError if it is a native one already."""
    if is_native(source):
        raise ValueError(f"{source} is a native file already, which says its latent space itself")
    return load_directions(source, space=space)


def directions_for(
    generator: Generator, sources: Sequence[str] | None, *, space: LatentSpace | None = None
) -> dict[str, Direction]:
    """Loads the directions of several files, by name.

    Without sources they are the shipped ones, for the portraits generator. `space` is as of
    `load_directions`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: as `load_directions`; or if two files hold the same name, or None is given for
            another generator.
    """
    if sources is None:
        shipped, own = portraits_generator().w_average, generator.w_average.cpu()
        if shipped.shape != own.shape or not torch.allclose(shipped, own, atol=1e-3):
            raise ValueError(
                "this method's generator is not the portraits one: give --directions FILE (made "
                "by scripts/directions.py, or an official file)"
            )
        sources = [SHIPPED]
    found: dict[str, Direction] = {}
    for source in sources:
        more = load_directions(source, space=space)
        if twice := sorted(found.keys() & more.keys()):
            raise ValueError(f"{source}: directions of an earlier file again: {', '.join(twice)}")
        found |= more
    return found


def directions_named(name: str, sources: Sequence[str]) -> list[Direction]:
    """Loads the direction of a name that acts on codes of W, that of codes of Z, or both.

    Of several files the last one that has it counts. Raises FileNotFoundError and ValueError as
    `load_directions`, and ValueError if no file has a direction of this name.
    """
    found: dict[bool, Direction] = {}
    known: dict[str, None] = {}
    for source in sources:
        directions = load_directions(source)
        known |= dict.fromkeys(directions)
        if name in directions:
            found[directions[name].space.is_mapped] = directions[name]
    if not found:
        raise ValueError(f"no direction is called {name!r}: {', '.join(known)}")
    return [*found.values()]


def _boundary(path: Path, space: LatentSpace | None) -> dict[str, Direction]:
    match = _BOUNDARY.fullmatch(path.stem)
    name = match[1] if match else _name(path.stem)
    if space is None:
        space = LatentSpace.Z if match and not match[2] else LatentSpace.W
    tensor = torch.from_numpy(np.array(read_npy(path), dtype=np.float64))
    return {name: _published(name, tensor, space, path)}


def _name(text: str) -> str:
    """Makes a text a valid name of a direction."""
    clean = "".join(c for c in text if c.isprintable() and c != "=")[:MAX_NAME]
    return clean or "direction"


def _torch_file(path: Path, space: LatentSpace | None) -> dict[str, Direction]:
    content = read_torch_file(path)
    check_memory(content.values() if isinstance(content, dict) else [], size=path.stat().st_size)
    if not isinstance(content, dict):
        name = _name(path.stem)
        return {name: _published(name, _tensor(name, content), space or LatentSpace.W, path)}
    if content.keys() >= _PCA:
        return _components(path, {key: _tensor(key, content[key]) for key in _PCA}, space)
    if "eigvec" in content:
        if space is not None and not space.is_mapped:
            raise ValueError(f"holds directions of SeFa, which are of W, not of {space}")
        return _factors(path, _tensor("eigvec", content["eigvec"]))
    if not content or len(content) > MAX_DIRECTIONS:
        raise ValueError(f"holds {len(content)} entries, expected directions")
    named = {_name(str(key)): _tensor(str(key), value) for key, value in content.items()}
    space = space or LatentSpace.W
    return {name: _published(name, tensor, space, path) for name, tensor in named.items()}


def _tensor(key: str, value: Any) -> Tensor:
    if isinstance(value, Array):
        value = value.tensor
    if not isinstance(value, Tensor):
        raise ValueError(
            f"{one_line(key, 80)} is a {type(value).__name__}; expected a direction (1, D) or "
            "(1, L, D), directions by name, {mean, comp, std} of GANSpace or {eigvec} of SeFa"
        )
    return value


def _published(name: str, tensor: Tensor, space: LatentSpace, path: Path) -> Direction:
    """Makes a direction of unit 1 from a tensor (D,), (1, D), (L, D) or (1, L, D)."""
    rows = tensor
    while rows.ndim > 2 and rows.shape[0] == 1:
        rows = rows[0]
    if rows.ndim == 1:
        rows = rows[None]
    if rows.ndim != 2 or not 0 < rows.shape[0] <= MAX_ROWS or not 1 < rows.shape[1] <= MAX_WIDTH:
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)}, expected a direction (1, D) or (1, L, D)"
        )
    return Direction(
        name=name,
        vector=rows.double().float() if rows.is_floating_point() else rows,
        space=space,
        meaning="the vector of the file, once",
        provenance={"file": path.name, "norm": float(rows.double().norm())},
    )


def _npz(path: Path) -> dict[str, Tensor]:
    """Reads the arrays of GANSpace's cache, or of a PCA under the names of the .pt files."""
    arrays = read_npz(path, wanted=("comp", "mean", "std", "lat_comp", "lat_mean", "lat_stdev"))
    given = {"comp": "lat_comp", "mean": "lat_mean", "std": "lat_stdev"}
    tensors = {}
    for key, official in given.items():
        array = arrays.get(official, arrays.get(key))
        if array is None:
            found = ", ".join(sorted(arrays)) or "none of them"
            raise ValueError(f"has no {official} nor {key} (found: {found}), expected a PCA")
        tensors[key] = torch.from_numpy(np.array(array, dtype=np.float64))
    return tensors


def _components(
    path: Path, tensors: Mapping[str, Tensor], space: LatentSpace | None
) -> dict[str, Direction]:
    if space is None:
        match = _CACHE.fullmatch(path.stem)
        space = LatentSpace.Z if match and not match[1] else LatentSpace.W
    comp, width = tensors["comp"], tensors["mean"].shape[-1] if tensors["mean"].ndim else 0
    if comp.ndim not in (2, 3) or len(comp) > MAX_DIRECTIONS or comp[:1].numel() != width:
        raise ValueError(
            f"has comp {tuple(comp.shape)} and mean {tuple(tensors['mean'].shape)}, expected "
            "(K, 1, D) and (1, D)"
        )
    pca = PrincipalComponents(
        mean=tensors["mean"].reshape(1, -1).float(),
        components=comp.reshape(len(comp), -1).float(),
        deviations=tensors["std"].reshape(-1).float(),
        space=space,
    )
    provenance = {"file": path.name}
    if not space.is_mapped:
        return pca.directions(semantics="increment", provenance=provenance)
    edits = next((e for n, e in EDITS_BY_FILE.items() if path.name.lower().startswith(n)), {})
    components = pca.directions(semantics="coordinate", provenance=provenance)
    return pca.named(edits, provenance=provenance) | components


def _factors(path: Path, eigvec: Tensor) -> dict[str, Direction]:
    if eigvec.ndim != 2 or not 1 < eigvec.shape[0] <= MAX_WIDTH or eigvec.shape[1] > MAX_DIRECTIONS:
        raise ValueError(f"eigvec has shape {tuple(eigvec.shape)}, expected (D, D)")
    # apply_factor.py moves by a column; degree 5 is its default.
    return sefa.directions_of(
        eigvec.T,
        count=eigvec.shape[1],
        rows=None,
        strengths=(-5.0, 5.0),
        method="SeFa, closed_form_factorization.py",
    )
