"""What metrics have taken in, as a file: tensors in safetensors, all else as JSON.

A part of an evaluation leaves its state there, to be merged with the others or continued. Values
come back bit for bit, and nothing in a file is executed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clcae.evaluation.preparation import Size
from clcae.evaluation.tally import Measure, Tally
from clcae.files import replacing
from clcae.metrics.moments import Moments
from clcae.metrics.reservoir import Reservoir

_KEY = "clcae-evaluation"


@dataclass
class Part:
    """A part of an evaluation, finished or not.

    Args:
        tally: The metrics.
        batches: How many batches of the part entered.
        num_images: How many images entered.
        left_out: Name of every image that could not be read, and why.
    """

    tally: Tally
    batches: int = 0
    num_images: int = 0
    left_out: dict[str, str] = field(default_factory=dict)

    def join(self, other: "Part") -> None:
        """Takes in another part."""
        tally = other.tally
        self.tally.take(tally.states(), tally.skipped, tally.shapes)
        self.batches += other.batches
        self.num_images += other.num_images
        self.left_out |= other.left_out


def write_part(part: Part, path: Path) -> None:
    """Writes a part; the file appears complete or not at all."""
    tensors: dict[str, Tensor] = {}
    states = {
        space: {name: _packed(state, f"{space}/{name}", tensors) for name, state in metrics.items()}
        for space, metrics in part.tally.states().items()
    }
    description = {
        "states": states,
        "skipped": part.tally.skipped,
        "shapes": part.tally.shapes,
        "batches": part.batches,
        "num_images": part.num_images,
        "left_out": part.left_out,
    }
    with replacing(path) as partial:
        save_file(tensors, partial, metadata={_KEY: json.dumps(description)})


def read_part(path: Path, measures: Mapping[str, Measure]) -> Part:
    """Reads a part.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, or of other measures.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a part of an evaluation")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            description = json.loads((file.metadata() or {})[_KEY])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        states = {
            space: {name: _unpacked(state, tensors) for name, state in metrics.items()}
            for space, metrics in description["states"].items()
        }
        shapes: dict[str, Size] = {
            stream: (int(height), int(width))
            for stream, (height, width) in description["shapes"].items()
        }
        tally = Tally(measures)
        tally.take(states, description["skipped"], shapes)
        return Part(
            tally=tally,
            batches=int(description["batches"]),
            num_images=int(description["num_images"]),
            left_out=dict(description["left_out"]),
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path}: a damaged part of an evaluation ({reason}); delete it"
        ) from error


def _packed(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """Something JSON can hold, with the tensors put under names of their places."""
    if isinstance(value, Mapping):
        return {key: _packed(entry, f"{place}/{key}", tensors) for key, entry in value.items()}
    if isinstance(value, Moments):
        tensors[f"{place}/mean"], tensors[f"{place}/scatter"] = value.mean, value.scatter
        return {"$moments": place, "count": value.count}
    if isinstance(value, Reservoir):
        vectors = value.vectors()
        narrow = vectors.float()
        tensors[place] = narrow if torch.equal(narrow.double(), vectors) else vectors
        return {
            "$reservoir": place,
            "count": value.count,
            "dimension": value.dimension,
            "maximum": value.maximum,
        }
    if isinstance(value, list) and all(isinstance(entry, float) for entry in value):
        tensors[place] = torch.tensor(value, dtype=torch.float64)
        return {"$values": place}
    return value


def _unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `_packed`."""
    if not isinstance(value, dict):
        return value
    if "$values" in value:
        return tensors[value["$values"]].tolist()
    if "$moments" in value:
        mean = tensors[f"{value['$moments']}/mean"]
        moments = Moments(dimension=len(mean))
        moments.count, moments.mean = int(value["count"]), mean
        moments.scatter = tensors[f"{value['$moments']}/scatter"]
        return moments
    if "$reservoir" in value:
        reservoir = Reservoir(dimension=int(value["dimension"]), maximum=int(value["maximum"]))
        reservoir.update(tensors[value["$reservoir"]])  # ranks follow from the vectors
        reservoir.count = int(value["count"])
        return reservoir
    return {key: _unpacked(entry, tensors) for key, entry in value.items()}
