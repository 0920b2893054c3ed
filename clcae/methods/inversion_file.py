"""The inversion file: what a method knows of one picture, to be edited later without the picture.

A safetensors file of `codes`, `feature` and what the method keeps as its context, one picture each,
with a JSON description: latent space and layer, the method and a digest of its weights, the picture
and its digest, and where in the picture the inversion comes from. Tensors are kept bit for bit.
Files may come from strangers: everything is checked, and nothing in them is ever executed.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from clcae.files import replacing
from clcae.methods.interface import Inversion
from clcae.stylegan2 import LatentSpace, Layer
from clcae.weight_file import opened, update_digest

FORMAT_VERSION = 1
LARGEST_FILE = 1 << 30  # bytes; that of a 1024-pixel method holds about two million
_METADATA_KEY = "clcae_inversion"
_CONTEXT = "context."


@dataclass(frozen=True)
class Maker:
    """Which method, set to which output.

    Args:
        source: The file name or shipped name it was loaded from.
        class_name: Of its class.
        sha256: `weights_digest` of it.
        output: What it was asked for: "W", "W+" or "F".
    """

    source: str
    class_name: str
    sha256: str
    output: str


@dataclass(frozen=True)
class Origin:
    """What an inversion was made of, and by whom.

    Args:
        maker: The method.
        picture: File name of the picture.
        picture_sha256: Digest of that file.
        picture_size: Its height and width in pixels, upright.
        crop: "centre" or "face".
        quad: The corners of the crop in the picture: top left, bottom left, bottom right, top
            right, in pixels with the centre of the top left pixel at (0, 0).
    """

    maker: Maker
    picture: str
    picture_sha256: str
    picture_size: tuple[int, int]
    crop: str
    quad: tuple[tuple[float, float], ...]


def save_inversion(
    inversion: Inversion,  # of one picture
    path: str | Path,
    *,
    origin: Origin,
) -> None:
    """Writes the inversion of one picture; the file appears complete or not at all.

    Args:
        inversion: Codes [1, L, D], a feature [1, C, h, w] or None, and a context of tensors whose
            first axis is 1.
        path: The file, customarily .safetensors; its folder is made if missing.
        origin: What it was made of.

    Raises:
        ValueError: the inversion is of another number of pictures, or holds what is not finite.
    """
    # Copies of their own, because safetensors refuses tensors that share memory.
    tensors = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in _tensors(inversion).items()
    }
    _check_tensors(tensors, "the inversion")
    description = {
        "format_version": FORMAT_VERSION,
        "space": inversion.space.value,
        "layer": inversion.layer.name if inversion.layer is not None else None,
        "origin": asdict(origin),
        "sha256": _digest(tensors),
    }
    data = to_bytes(tensors, metadata={_METADATA_KEY: json.dumps(description, allow_nan=False)})
    with replacing(path) as partial:
        partial.write_bytes(data)


def load_inversion(path: str | Path) -> tuple[Inversion, Origin]:
    """Reads an inversion file, bit for bit what was saved.

    Returns:
        The inversion of one picture, on the CPU, and its origin. Whether it fits a method is
        another question: `check_origin` and `check_fit`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no inversion, is damaged, too large, or holds what is not finite.
    """
    path = Path(path)
    if path.is_file() and path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"{path}: more than {LARGEST_FILE >> 30} GiB, too large for an inversion")
    with opened(path) as file:
        text = (file.metadata() or {}).get(_METADATA_KEY)
        if text is None:
            raise ValueError(f"{path}: a safetensors file, but none that scripts/invert.py wrote")
        # Copies, because the reader's lie in the mapped file, which may change later.
        tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    description = _description(text, path)
    _check_tensors(tensors, str(path))
    if _digest(tensors) != description["sha256"]:
        raise ValueError(f"{path}: tensors do not match their sha256; the file is damaged")
    try:
        layer = description["layer"]
        inversion = Inversion(
            codes=tensors["codes"],
            space=LatentSpace(description["space"]),
            feature=tensors.get("feature"),
            layer=None if layer is None else Layer.parse(layer),
            context={
                key.removeprefix(_CONTEXT): value
                for key, value in tensors.items()
                if key.startswith(_CONTEXT)
            },
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: description is damaged ({error})") from error
    if (inversion.feature is None) != (inversion.layer is None):
        raise ValueError(f"{path}: description is damaged (a feature and its layer go together)")
    return inversion, _origin(description["origin"], path)


def check_origin(origin: Origin, maker: Maker) -> None:
    """Whether a method may go on with an inversion.

    Args:
        origin: Of the inversion.
        maker: The method that is to go on.

    Raises:
        ValueError: it was made by another method, or as another of its outputs.
    """
    before = origin.maker
    if before.sha256 != maker.sha256:
        raise ValueError(
            f"inverted by another method, the {before.class_name} of {before.source} (sha256 "
            f"{before.sha256[:12]}...; {maker.source} has {maker.sha256[:12]}...)"
        )
    if before.output != maker.output:
        raise ValueError(
            f"inverted as output {before.output}, asked for is {maker.output}: "
            f"give --output {before.output}"
        )


def check_fit(
    inversion: Inversion,
    like: Inversion,  # what the method itself makes of a picture
) -> None:
    """Whether an inversion has the form of a method's own.

    Raises:
        ValueError: space, layer, or the name, shape or type of a tensor differ.
    """
    if (inversion.space, inversion.layer) != (like.space, like.layer):
        raise ValueError(
            f"an inversion in {inversion.space} with a feature at {inversion.layer}, this method's "
            f"are in {like.space} with one at {like.layer}"
        )
    given, expected = (
        {key: (tuple(value.shape[1:]), value.dtype) for key, value in _tensors(each).items()}
        for each in (inversion, like)
    )
    if given != expected:
        key = min({*given.items()} ^ {*expected.items()}, key=lambda entry: entry[0])[0]
        raise ValueError(
            f"{key} is {_form(given.get(key))}, expected {_form(expected.get(key))} by this method"
        )


def split(inversion: Inversion) -> list[Inversion]:
    """The inversions of every picture of a batch; views."""
    return [
        _mapped(inversion, lambda tensor, row=row: tensor[row : row + 1])
        for row in range(len(inversion.codes))
    ]


def join(inversions: Sequence[Inversion]) -> Inversion:
    """One batch of inversions of the same form."""
    tensors = [_tensors(inversion) for inversion in inversions]
    joined = {key: torch.cat([each[key] for each in tensors]) for key in tensors[0]}
    return _with_tensors(inversions[0], joined)


def moved_to(inversion: Inversion, device: torch.device | str) -> Inversion:
    """The inversion with its tensors on a device."""
    return _mapped(inversion, lambda tensor: tensor.to(device))


def _tensors(inversion: Inversion) -> dict[str, Tensor]:
    tensors = {"codes": inversion.codes}
    if inversion.feature is not None:
        tensors["feature"] = inversion.feature
    return tensors | {_CONTEXT + key: value for key, value in inversion.context.items()}


def _with_tensors(inversion: Inversion, tensors: Mapping[str, Tensor]) -> Inversion:
    return Inversion(
        codes=tensors["codes"],
        space=inversion.space,
        feature=tensors.get("feature"),
        layer=inversion.layer,
        context={key: tensors[_CONTEXT + key] for key in inversion.context},
    )


def _mapped(inversion: Inversion, function: Any) -> Inversion:
    tensors = _tensors(inversion)
    return _with_tensors(inversion, {key: function(value) for key, value in tensors.items()})


def _check_tensors(tensors: Mapping[str, Tensor], name: str) -> None:
    """Codes there, nothing unknown, one picture each, finite numbers of floating point."""
    axes = {"codes": 3, "feature": 4}
    if "codes" not in tensors:
        raise ValueError(f"{name}: has no codes")
    for key, value in tensors.items():
        if key not in axes and not key.startswith(_CONTEXT):
            raise ValueError(f"{name}: holds {key[:80]!r}, which belongs to no inversion")
        if value.ndim != axes.get(key, max(value.ndim, 1)) or len(value) != 1:
            raise ValueError(
                f"{name}: {key[:80]} has shape {tuple(value.shape)}, expected that of one picture"
            )
        # The extremes are NaN where any value is; isfinite of all would take a copy.
        if not value.is_floating_point() or not (
            value.numel() and all(map(torch.isfinite, value.aminmax()))
        ):
            raise ValueError(f"{name}: {key[:80]} holds what is no finite floating-point number")


def _description(text: str, path: Path) -> dict[str, Any]:
    try:
        description = json.loads(text)
        version = description["format_version"]
        sound = isinstance(description["origin"], dict) and {*description} == {
            "format_version",
            "space",
            "layer",
            "origin",
            "sha256",
        }
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: description is damaged ({type(error).__name__})") from error
    if version != FORMAT_VERSION:
        raise ValueError(f"{path}: format version {version!r}, expected {FORMAT_VERSION}")
    if not sound:
        raise ValueError(f"{path}: description is damaged (other fields)")
    return description


def _origin(fields: Mapping[str, Any], path: Path) -> Origin:
    try:
        maker = Maker(**fields["maker"])
        height, width = (int(side) for side in fields["picture_size"])
        quad = tuple((float(x), float(y)) for x, y in fields["quad"])
        rest = {**fields, "maker": maker, "picture_size": (height, width), "quad": quad}
        origin = Origin(**rest)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{path}: description is damaged ({type(error).__name__})") from error
    texts = (*asdict(maker).values(), origin.picture, origin.picture_sha256, origin.crop)
    if not all(isinstance(text, str) and text.isprintable() for text in texts):
        raise ValueError(f"{path}: description is damaged (a field has the wrong type)")
    return origin


def _form(found: tuple[tuple[int, ...], torch.dtype] | None) -> str:
    return "absent" if found is None else f"{list(found[0])} of {found[1]}"


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(tensors):
        update_digest(digest, key, tensors[key].contiguous())
    return digest.hexdigest()
