"""Delta files: the changed weights of a generator, and nothing else.

A safetensors file of the changes (`clcae.stylegan2.tuned`) with the digest of the generator that
they belong to. The official code of pivotal tuning pickles a whole generator for every picture,
116 MB at 1024 pixels. Files may come from strangers: names and shapes are checked before anything
is read, and nothing is executed.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from clcae.construction import check_finite
from clcae.quoting import one_line, parse_json, shown
from clcae.stylegan2.generator import Generator
from clcae.stylegan2.tuned import check_changes
from clcae.weight_file import (
    digest_of,
    opened,
    read_header,
    read_weights,
    weights_digest,
    write_weights,
)

FORMAT_VERSION = 1
_METADATA_KEY = "clcae_delta"
_FIELDS = {"format_version", "generator_sha256", "sha256"}


def save_delta(
    changes: Mapping[str, Tensor],
    path: str | Path,
    *,
    generator: Generator,  # the one that they change, as it was before
) -> None:
    """Writes changes, complete or not at all.

    Raises:
        ValueError: if they do not fit the generator, are not finite, or no float32.
    """
    check_changes(generator, {name: value.shape for name, value in changes.items()})
    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in changes.items()}
    check_finite(tensors)
    _check_types({key: value.dtype for key, value in tensors.items()})
    description = {
        "format_version": FORMAT_VERSION,
        "generator_sha256": weights_digest(generator),
        "sha256": digest_of(tensors),
    }
    write_weights(path, tensors, {_METADATA_KEY: json.dumps(description)})


def load_delta(path: str | Path, *, generator: Generator) -> dict[str, Tensor]:
    """Reads changes for `with_changes`, on the CPU.

    Args:
        path: the file.
        generator: one with the very weights of that which the changes were made for.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no delta file, damaged, or of another generator.
    """
    with opened(path) as file:
        text = (file.metadata() or {}).get(_METADATA_KEY)
    if text is None:
        raise ValueError(f"{path}: a safetensors file, but none of changed weights")
    try:
        description = parse_json(text)
        if {*description} != _FIELDS:
            raise ValueError("other fields")
        if (version := description["format_version"]) != FORMAT_VERSION:
            raise ValueError(f"format version {shown(version)}, expected {FORMAT_VERSION}")
        entries, start = read_header(path)
        own = weights_digest(generator)
        if (given := description["generator_sha256"]) != own:
            raise ValueError(
                f"of another generator, sha256 {one_line(given, 12)}..., this one has {own[:12]}..."
            )
        check_changes(generator, {key: entry.shape for key, entry in entries.items()})
        _check_types({key: entry.dtype for key, entry in entries.items()})
        changes, digest = read_weights(path, entries, start, dict.fromkeys(entries, torch.float32))
        if digest != description["sha256"]:
            raise ValueError("weights do not match their sha256; the file is damaged")
        check_finite(changes)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = one_line(error, 300) if type(error) is ValueError else type(error).__name__
        raise ValueError(f"{path}: no changed weights for this generator ({reason})") from error
    return changes


def _check_types(types: Mapping[str, torch.dtype]) -> None:
    for key, dtype in types.items():
        if dtype != torch.float32:
            raise ValueError(f"{key} is of {dtype}, expected torch.float32")
