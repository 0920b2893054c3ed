"""The native file of directions: vectors as buffers, all else as settings, checked strictly."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clcae.serialization import register, save
from clcae.stylegan2 import LatentSpace
from editing.directions import Direction

MAX_DIRECTIONS = 4096
MAX_ROWS, MAX_WIDTH = 256, 1 << 16
_FIELDS = {
    *("name", "shape", "space", "layers", "unit", "strengths", "default"),
    *("semantics", "meaning", "provenance"),
}


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
            rows, width = self._checked(index, entry)
            self.register_buffer(f"vector_{index}", torch.zeros(rows, width))
            if entry["semantics"] == "coordinate":
                self.register_buffer(f"center_{index}", torch.zeros(1, width))

    @staticmethod
    def _checked(index: int, entry: Mapping[str, Any]) -> tuple[int, int]:
        if entry.keys() != _FIELDS:
            odd = sorted(_FIELDS ^ entry.keys())
            raise ValueError(f"direction {index} lacks or has too many fields: {odd[:5]}")
        shape, layers, strengths = (entry[key] for key in ("shape", "layers", "strengths"))
        numbers = [entry["unit"], entry["default"], *(strengths or ())]
        sound = (
            _are(int, shape, 2)
            and (layers is None or _are(int, layers, 2))
            and _are((int, float), strengths, 2)
            and _are((int, float), numbers, 4)
            and all(isinstance(entry[key], str) for key in ("name", "space", "meaning"))
            and isinstance(entry["provenance"], Mapping)
        )
        if not sound or not (0 < shape[0] <= MAX_ROWS and 0 < shape[1] <= MAX_WIDTH):
            raise ValueError(f"direction {index} has a field of another form or size")
        return shape[0], shape[1]

    @classmethod
    def of(cls, directions: Sequence[Direction]) -> "DirectionSet":
        """Builds the module of directions.

        Raises:
            ValueError: if two share a name.
        """
        names = [direction.name for direction in directions]
        if len({*names}) != len(names):
            raise ValueError(f"two directions share a name: {', '.join(sorted(names))}")
        module = cls(
            entries=[
                {
                    "name": direction.name,
                    "shape": list(direction.vector.shape),
                    "space": str(direction.space),
                    "layers": None if direction.layers is None else list(direction.layers),
                    "unit": direction.unit,
                    "strengths": list(direction.strengths),
                    "default": direction.default,
                    "semantics": direction.semantics,
                    "meaning": direction.meaning,
                    "provenance": dict(direction.provenance),
                }
                for direction in directions
            ]
        )
        for index, direction in enumerate(directions):
            module.get_buffer(f"vector_{index}").copy_(direction.vector)
            if direction.center is not None:
                module.get_buffer(f"center_{index}").copy_(direction.center)
        return module

    def directions(self) -> dict[str, Direction]:
        """Returns the directions by name.

        Raises:
            ValueError: if one is not sound, or two share a name.
        """
        found: dict[str, Direction] = {}
        for index, entry in enumerate(self.entries):
            direction = Direction(
                name=entry["name"],
                vector=self.get_buffer(f"vector_{index}"),
                space=LatentSpace(entry["space"]),
                layers=None if entry["layers"] is None else tuple(entry["layers"]),
                unit=float(entry["unit"]),
                strengths=tuple(entry["strengths"]),
                default=float(entry["default"]),
                semantics=entry["semantics"],
                center=dict(self.named_buffers()).get(f"center_{index}"),
                meaning=entry["meaning"],
                provenance=entry["provenance"],
            )
            if direction.name in found:
                raise ValueError(f"two directions are called {direction.name!r}")
            found[direction.name] = direction
        return found


def _are(kind: type | tuple[type, ...], values: object, count: int) -> bool:
    return (
        isinstance(values, list | tuple)
        and len(values) == count
        and all(isinstance(value, kind) and not isinstance(value, bool) for value in values)
    )


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
