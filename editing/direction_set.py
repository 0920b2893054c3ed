"""The native file of directions: vectors as buffers, all else as settings, checked strictly."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clcae.quoting import listing
from clcae.serialization import register, save
from clcae.stylegan2 import LatentSpace
from editing.directions import Direction

MAX_DIRECTIONS = 4096
MAX_ROWS, MAX_WIDTH = 256, 1 << 16
_TEXTS = ("name", "space", "meaning")
_FIELDS = {*_TEXTS, *("shape", "layers", "unit", "strengths", "default", "semantics", "provenance")}


@register("directions")
class DirectionSet(nn.Module):
    """Holds directions as a module, so that a native checkpoint can store them.

    Args:
        entries: of each direction a dict of its fields, without the vectors, which are buffers.

    Raises:
        ValueError: if an entry has another form than `of` writes.
    """

    def __init__(self, *, entries: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        self.entries = [dict(entry) for entry in entries]
        if len(entries) > MAX_DIRECTIONS:
            raise ValueError(f"{len(entries)} directions, at most {MAX_DIRECTIONS}")
        for index, entry in enumerate(self.entries):
            _check(index, entry)
            rows, width = entry["shape"]
            self.register_buffer(f"vector_{index}", torch.zeros(rows, width))
            if entry["semantics"] == "coordinate":
                self.register_buffer(f"center_{index}", torch.zeros(1, width))

    @classmethod
    def of(cls, directions: Sequence[Direction]) -> "DirectionSet":
        """Builds the module of directions. Raises ValueError if two share a name."""
        names = [direction.name for direction in directions]
        if len({*names}) != len(names):
            raise ValueError(f"two directions share a name: {', '.join(sorted(names))}")
        entries = [
            {
                "name": direction.name,
                "shape": list(direction.vector.shape),
                "space": str(direction.space),
                "layers": direction.layers and list(direction.layers),
                "unit": direction.unit,
                "strengths": list(direction.strengths),
                "default": direction.default,
                "semantics": direction.semantics,
                "meaning": direction.meaning,
                "provenance": dict(direction.provenance),
            }
            for direction in directions
        ]
        module = cls(entries=entries)
        for index, direction in enumerate(directions):
            module.get_buffer(f"vector_{index}").copy_(direction.vector)
            if direction.center is not None:
                module.get_buffer(f"center_{index}").copy_(direction.center)
        return module

    def directions(self) -> dict[str, Direction]:
        """Returns the directions by name. Raises ValueError if one is not sound."""
        found: dict[str, Direction] = {}
        buffers = dict(self.named_buffers())
        for index, entry in enumerate(self.entries):
            fields = {key: value for key, value in entry.items() if key != "shape"}
            fields |= {"space": LatentSpace(entry["space"]), "strengths": (*entry["strengths"],)}
            fields |= {"layers": entry["layers"] and (*entry["layers"],)}
            fields |= {key: float(entry[key]) for key in ("unit", "default")}
            vector, center = buffers[f"vector_{index}"], buffers.get(f"center_{index}")
            direction = Direction(**fields, vector=vector, center=center)
            if direction.name in found:
                raise ValueError(f"two directions are called {direction.name!r}")
            found[direction.name] = direction
        return found


def save_directions(
    directions: Mapping[str, Direction], path: str | Path, *, provenance: Mapping[str, Any]
) -> None:
    """Writes directions as a native file.

    Raises:
        ValueError: if there are none, or their provenance does not fit JSON.
    """
    if not directions:
        raise ValueError("there are no directions to write")
    save(DirectionSet.of(list(directions.values())), path, provenance=provenance)


def _check(index: int, entry: Mapping[str, Any]) -> None:
    if entry.keys() != _FIELDS:
        odd = sorted(_FIELDS ^ entry.keys())
        raise ValueError(f"direction {index} lacks or has too many fields: {listing(odd, 5)}")
    shape, layers, numbers = entry["shape"], entry["layers"], [entry["unit"], entry["default"]]
    sound = (
        _are(int, shape)
        and (layers is None or _are(int, layers))
        and _are((int, float), entry["strengths"])
        and _are((int, float), numbers)
        and all(isinstance(entry[key], str) for key in _TEXTS)
        and isinstance(entry["provenance"], Mapping)
    )
    if not sound or not (0 < shape[0] <= MAX_ROWS and 0 < shape[1] <= MAX_WIDTH):
        raise ValueError(f"direction {index} has a field of another form or size")


def _are(kind: type | tuple[type, ...], pair: object) -> bool:
    return (
        isinstance(pair, list | tuple)
        and len(pair) == 2
        and all(isinstance(value, kind) and not isinstance(value, bool) for value in pair)
    )
