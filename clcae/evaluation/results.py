"""A row of results with the protocol it was measured under, and files of rows.

`.jsonl` files hold one row per line and can be appended to; any other file holds a list. JSON has
no infinity and no NaN: a value that is not finite is written as null and read as NaN.
"""

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clcae.serialization import replacing


@dataclass(frozen=True)
class Row:
    """What one method scores in one space.

    Args:
        method: Name of the method.
        space: What the images were synthesized from: "W", "W+", "F", ...
        metrics: Value of each metric; NaN where no image could be judged.
        protocol: For each metric everything that would change its value, in words, with its
            direction and range.
        num_images: Number of images put in.
        skipped: For each metric the names of images it could not judge; metrics that judged all
            are left out.
        versions: Versions of the software.
        extra: Anything else worth keeping: time per image, resolution, checkpoint.
    """

    method: str
    space: str
    metrics: Mapping[str, float]
    protocol: Mapping[str, Mapping[str, str]]
    num_images: int
    skipped: Mapping[str, Sequence[str]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


def software_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a value may depend on."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def write_rows(rows: Sequence[Row], path: str | Path) -> None:
    """Write rows to a file, which appears complete or not at all; an older one is replaced.

    Args:
        rows: Rows, in the order they are to have.
        path: The file: lines for `.jsonl`, a list otherwise.

    Raises:
        ValueError: If a row holds what JSON cannot.
    """
    path = Path(path)
    try:
        objects = [_without_nan(asdict(row)) for row in rows]
        if path.suffix == ".jsonl":
            text = "".join(json.dumps(o, ensure_ascii=False) + "\n" for o in objects)
        else:
            text = json.dumps(objects, ensure_ascii=False, indent=2) + "\n"
    except TypeError as error:
        raise ValueError(f"{path}: a row does not fit JSON: {error}") from error
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def append_rows(rows: Sequence[Row], path: str | Path) -> None:
    """Add rows to the end of a file, or begin it; an interruption leaves it as it was.

    Args:
        rows: Rows to add.
        path: The file, of the format of `write_rows`.

    Raises:
        ValueError: If the file there is damaged, or a row holds what JSON cannot.
    """
    earlier = read_rows(path) if Path(path).exists() else []
    write_rows([*earlier, *rows], path)


def read_rows(path: str | Path) -> list[Row]:
    """Read rows from a file.

    Args:
        path: A file of `write_rows`.

    Returns:
        The rows, in the order of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, or its rows have other fields.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected rows of an evaluation")
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            objects = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            objects = json.loads(text)
        return [_row(o) for o in objects]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: not a file of rows ({error})") from error


def _row(values: Mapping[str, Any]) -> Row:
    unknown = sorted(values.keys() - {f.name for f in fields(Row)})
    if unknown:
        raise ValueError(f"unknown fields {', '.join(unknown)}")
    metrics = {
        name: math.nan if value is None else float(value)
        for name, value in values["metrics"].items()
    }
    return Row(**{**values, "metrics": metrics})


def _without_nan(value: Any) -> Any:
    """The same value with null for every number that is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return value
