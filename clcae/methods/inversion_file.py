"""Inversion files: the inversion of one picture, to be edited later without the picture.

A safetensors file of `codes`, `feature` and the method's context, bit for bit, with a JSON
description: latent space, layer, the method with a digest of its weights, the picture with its
digest, and the crop. Files may come from strangers: everything is checked, nothing is executed.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from clcae.construction import is_finite
from clcae.files import replacing
from clcae.methods.interface import Inversion
from clcae.quoting import one_line, parse_json, shown
from clcae.stylegan2 import LatentSpace, Layer
from clcae.weight_file import opened, update_digest

FORMAT_VERSION = 1
LARGEST_FILE = 1 << 30  # bytes; that of a 1024-pixel method holds about two million
_METADATA_KEY = "clcae_inversion"
_CONTEXT = "context."
_FIELDS = {"format_version", "space", "layer", "origin", "sha256"}
_DIGEST = "description_sha256"  # of all other fields; files were once written without it
_CROPS = ("centre", "face")
_LONGEST_TEXT = 4096  # of a file's name, in characters
_LARGEST_PICTURE = 1 << 20  # pixels of a side


@dataclass(frozen=True)
class Maker:
    """The method that made an inversion, and its output."""

    source: str  # file name or shipped name
    class_name: str
    sha256: str  # `weights_digest`
    output: str
    precision: str = "float32"  # in which it was computed; files once did not say it


@dataclass(frozen=True)
class Origin:
    """The method and the crop of a picture that an inversion was made of.

    Args:
        maker: the method.
        picture: file name of the picture.
        picture_sha256: digest of that file.
        picture_size: its height and width in pixels, upright.
        crop: "centre" or "face".
        quad: the corners of the crop in the picture: top left, bottom left, bottom right, top
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
    """Writes the inversion of one picture atomically.

    Raises:
        ValueError: if the inversion is of another number of pictures, or not finite.
    """
    # Copies of their own, because safetensors refuses tensors that share memory.
    tensors = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in _tensors(inversion).items()
    }
    _check_tensors(tensors)
    description = {
        "format_version": FORMAT_VERSION,
        "space": inversion.space.value,
        "layer": inversion.layer.name if inversion.layer is not None else None,
        "origin": asdict(origin),
        "sha256": _digest(tensors),
    }
    description[_DIGEST] = _description_digest(description)
    data = to_bytes(tensors, metadata={_METADATA_KEY: json.dumps(description, allow_nan=False)})
    with replacing(path) as partial:
        partial.write_bytes(data)


def load_inversion(path: str | Path) -> tuple[Inversion, Origin]:
    """Reads an inversion, on the CPU, and its origin.

    `check_origin` and `check_fit` say whether a method may go on with it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no inversion, damaged, too large, or not finite.
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
    try:
        description = parse_json(text)
        if (version := description["format_version"]) != FORMAT_VERSION:
            raise ValueError(f"format version {shown(version)}, expected {FORMAT_VERSION}")
        if {*description} - {_DIGEST} != _FIELDS:
            raise ValueError("other fields")
        if description.pop(_DIGEST, None) not in (None, _description_digest(description)):
            raise ValueError("the description does not match its sha256")
        origin, layer = _origin(description["origin"]), description["layer"]
        _check_tensors(tensors)
        if _digest(tensors) != description["sha256"]:
            raise ValueError("tensors do not match their sha256")
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
        if (inversion.feature is None) != (inversion.layer is None):
            raise ValueError("a feature and its layer go together")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: file or description is damaged ({_reason(error)})") from error
    return inversion, origin


def check_origin(origin: Origin, maker: Maker) -> None:
    """Raises ValueError unless an inversion was made by a method, as its output."""
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
    like: Inversion,  # one of the method itself, of any picture
) -> None:
    """Raises ValueError if space, layer, or the name, shape or type of a tensor differ."""
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
            f"{key} is {_form(given.get(key))}, expected {_form(expected.get(key))} by this "
            "method: was it inverted with other settings?"
        )


def split(inversion: Inversion) -> list[Inversion]:
    """Splits a batch into inversions of one picture each; views."""
    return [
        _mapped(inversion, lambda tensor, row=row: tensor[row : row + 1])
        for row in range(len(inversion.codes))
    ]


def join(inversions: Sequence[Inversion]) -> Inversion:
    """Joins inversions of the same form into one batch."""
    tensors = [_tensors(inversion) for inversion in inversions]
    joined = {key: torch.cat([each[key] for each in tensors]) for key in tensors[0]}
    return _with_tensors(inversions[0], joined)


def holds_numbers(inversion: Inversion) -> bool:
    """Tests whether no tensor of an inversion holds NaN or infinity."""
    return all(map(is_finite, _tensors(inversion).values()))


def moved_to(inversion: Inversion, device: torch.device | str) -> Inversion:
    """Moves the tensors of an inversion to a device."""
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


def _check_tensors(tensors: Mapping[str, Tensor]) -> None:
    """Checks for codes, nothing unknown, one picture each, finite floating-point numbers."""
    axes = {"codes": 3, "feature": 4}
    if "codes" not in tensors:
        raise ValueError("has no codes")
    for key, value in tensors.items():
        if key not in axes and not key.startswith(_CONTEXT):
            raise ValueError(f"holds {shown(key)}, which belongs to no inversion")
        if value.ndim != axes.get(key, max(value.ndim, 1)) or len(value) != 1:
            shape = tuple(value.shape)
            name = one_line(key, 80)
            raise ValueError(f"{name} has shape {shape}, expected that of one picture")
        if not value.is_floating_point() or not value.numel() or not is_finite(value):
            raise ValueError(f"{one_line(key, 80)} holds what is no finite floating-point number")


def _origin(fields: Mapping[str, Any]) -> Origin:
    maker, size, quad = Maker(**fields["maker"]), fields["picture_size"], fields["quad"]
    height, width = size
    if not all(type(side) is int and 0 < side <= _LARGEST_PICTURE for side in size):
        raise ValueError(f"a picture of {shown(height)} x {shown(width)} pixels")
    corners = tuple((x, y) for x, y in quad)
    if len(corners) != 4 or not all(_is_coordinate(part) for pair in corners for part in pair):
        raise ValueError("a quad of something else than four corners")
    origin = Origin(**{**fields, "maker": maker, "picture_size": (height, width), "quad": corners})
    texts = (*asdict(maker).values(), origin.picture, origin.picture_sha256, origin.crop)
    if not all(isinstance(text, str) and text.isprintable() for text in texts):
        raise ValueError("a field has the wrong type")
    if max(map(len, texts)) > _LONGEST_TEXT:
        raise ValueError("a field is too long")
    if origin.crop not in _CROPS:
        raise ValueError(f"crop is {shown(origin.crop)}, expected {' or '.join(_CROPS)}")
    return origin


def _is_coordinate(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _description_digest(description: Mapping[str, Any]) -> str:
    text = json.dumps(description, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _reason(error: Exception) -> str:
    """One line; the type alone where the message may be long or says nothing."""
    plain = type(error) is ValueError
    return one_line(error, 300) if plain else type(error).__name__


def _form(found: tuple[tuple[int, ...], torch.dtype] | None) -> str:
    return "absent" if found is None else f"{list(found[0])} of {found[1]}"


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(tensors):
        update_digest(digest, key, tensors[key].contiguous())
    return digest.hexdigest()
