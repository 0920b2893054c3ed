"""What lies beside a crop, so that it can be pasted back: a small JSON file.

Coordinates are those of the upright picture, its EXIF orientation applied as `read_image` does.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clcae.files import replacing

LARGEST_RECORD = 1 << 16  # bytes


@dataclass(frozen=True)
class Record:
    """Where a crop comes from.

    Args:
        source: Path of the photograph or the video.
        frame: Name of the frame in a video; None in a photograph.
        height: Of the photograph, in pixels.
        width: Of the photograph, in pixels.
        size: Of the crop, in pixels on each side.
        faces: Which faces were asked for: "largest", "all" or a number.
        number: Of the face in the photograph, from 0 at the left.
        num_crops: How many crops of the photograph there are.
        was_aligned: Whether the photograph was such a crop already.
        quad: Corners of the crop [4, 2]: top left, bottom left, bottom right, top right.
        landmarks: [5, 2] pixels of the photograph.
    """

    source: str
    frame: str | None
    height: int
    width: int
    size: int
    faces: str
    number: int
    num_crops: int
    was_aligned: bool
    quad: Tensor
    landmarks: Tensor


def write_record(record: Record, path: str | Path) -> None:
    """Writes a record; the file appears complete or not at all."""
    fields = {
        key: value.tolist() if isinstance(value, Tensor) else value
        for key, value in vars(record).items()
    }
    with replacing(path) as partial:
        partial.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")


def read_record(path: str | Path) -> Record:
    """Reads what `write_record` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such record, or is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected the record beside a crop")
    try:
        with path.open(encoding="utf-8") as file:
            fields = json.loads(file.read(LARGEST_RECORD))
        record = Record(
            source=_typed(fields, "source", str),
            frame=None if fields["frame"] is None else _typed(fields, "frame", str),
            height=_typed(fields, "height", int),
            width=_typed(fields, "width", int),
            size=_typed(fields, "size", int),
            faces=_typed(fields, "faces", str),
            number=_typed(fields, "number", int),
            num_crops=_typed(fields, "num_crops", int),
            was_aligned=_typed(fields, "was_aligned", bool),
            quad=_points(fields, "quad", 4),
            landmarks=_points(fields, "landmarks", 5),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: no record of a crop, or damaged ({error!r:.80})") from error
    return record


def _typed(fields: Mapping[str, Any], key: str, kind: type) -> Any:
    value = fields[key]
    if type(value) is not kind:
        raise TypeError(f"{key} is {value!r:.40}")
    return value


def _points(fields: Mapping[str, Any], key: str, count: int) -> Tensor:
    points = torch.tensor(fields[key], dtype=torch.float64)
    if points.shape != (count, 2) or not torch.isfinite(points).all():
        raise ValueError(f"{key} is {tuple(points.shape)}")
    return points
