"""A row of results with the protocol it was measured under, and files of rows.

`.jsonl` files hold one row per line and can be appended to; any other file holds a list. JSON has
no infinity and no NaN: a value that is not finite is written as null and read as NaN.
"""

import json
import math
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from clcae.files import leftovers_of, locked, replacing
from clcae.quoting import listing, one_line, parse_json

PACKAGES = ("numpy", "torchvision", "pillow", "torch-fidelity", "lpips", "facenet-pytorch")


@dataclass(frozen=True)
class Row:
    """The values of one method in one space.

    Args:
        space: what the images were synthesized from: "W", "W+", "F", ...
        metrics: value of each metric; NaN where no image could be judged.
        protocol: for each metric every setting that affects its value, in words, with its
            direction and range.
        num_images: number of images put in.
        skipped: for each metric the names of images it could not judge, if any.
        extra: anything else worth keeping: the images, why they were skipped or a value is missing,
            sha256 of the weights, commit, configuration.
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
    """Returns the versions of Python and of the installed libraries that a value may depend on."""
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def source_commit() -> str | None:
    """Reads the commit of this source, marked if changed since; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # a folder above may be the checkout of something else
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        described = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


def remarks(rows: Sequence[Row]) -> list[str]:
    """Lists what is missing from rows of one evaluation: values, and images with the reason."""
    lines = []
    for row in rows:
        for name, reason in row.extra.get("without_value", {}).items():
            # What has no protocol was said before the work; the rest once for all spaces.
            if name in row.protocol and (line := f"no value of {name}: {reason}") not in lines:
                lines.append(line)
        alike: dict[tuple[str, ...], list[str]] = {}  # images and why -> metrics
        for name, names in row.skipped.items():
            alike.setdefault((*names, row.extra["reasons"][name]), []).append(name)
        for (*names, reason), metrics in alike.items():
            listed = ", ".join(names[:5]) + (", ..." if names[5:] else "")
            which = f"{', '.join(metrics)} of {row.space}"
            lines.append(f"not counted by {which}: {len(names)} images ({listed}): {reason}")
    left_out: Mapping[str, str] = rows[0].extra["left_out"]
    return [*lines, *(f"{name} is left out: {reason}" for name, reason in left_out.items())]


def write_rows(rows: Sequence[Row], path: str | Path) -> None:
    """Writes a file of rows: lines for `.jsonl`, a list otherwise; replaces an older one whole.

    Raises:
        ValueError: if a row holds what JSON cannot.
    """
    path = Path(path)
    text = _text(rows, path)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def append_rows(
    rows: Sequence[Row],
    path: str | Path,
    *,
    unless: Callable[[Row], bool] = lambda _: False,
) -> None:
    """Appends rows to a file of rows, or begins one; an interruption leaves it as it was.

    Several processes may append at once; what killed ones left beside the file is removed. Lines
    that are there stay as they are, byte for byte.

    Args:
        rows: appended in this order.
        path: the file.
        unless: called with each row in the file; where it is true of one, no row of its space is
            appended.

    Raises:
        ValueError: if the file there is damaged, or a row holds what JSON cannot.
    """
    path = Path(path)
    with locked(path.parent) as held:
        for leftover in leftovers_of(path) if held else ():
            leftover.unlink(missing_ok=True)
        earlier = read_rows(path) if path.exists() and path.stat().st_size else []
        there = {row.space for row in earlier if unless(row)}
        rows = [row for row in rows if row.space not in there]
        if not rows:
            return
        if path.suffix != ".jsonl":
            write_rows([*earlier, *rows], path)
            return
        before = path.read_text(encoding="utf-8") if earlier else ""
        if before and not before.endswith("\n"):
            before += "\n"
        text = before + _text(rows, path)
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")


def read_rows(path: str | Path) -> list[Row]:
    """Reads a file of rows.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, or its rows have other fields.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected rows of an evaluation")
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            objects = [parse_json(line) for line in text.splitlines() if line.strip()]
        else:
            objects = parse_json(text)
        return [_row(o) for o in objects]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: not a file of rows ({one_line(error, 300)})") from error


def _text(rows: Sequence[Row], path: Path) -> str:
    """Converts rows to the format of a file. Raises ValueError for what JSON cannot hold."""
    try:
        objects = [_without_nan(asdict(row)) for row in rows]
        if path.suffix == ".jsonl":
            return "".join(json.dumps(o, ensure_ascii=False) + "\n" for o in objects)
        return json.dumps(objects, ensure_ascii=False, indent=2) + "\n"
    except TypeError as error:
        raise ValueError(f"{path}: a row does not fit JSON: {error}") from error


def _row(values: Mapping[str, Any]) -> Row:
    unknown = sorted(values.keys() - {f.name for f in fields(Row)})
    if unknown:
        raise ValueError(f"unknown fields {listing(unknown, 4)}")
    metrics = {
        name: math.nan if value is None else float(value)
        for name, value in values["metrics"].items()
    }
    return Row(**{**values, "metrics": metrics})


def _without_nan(value: Any) -> Any:
    """Replaces every number that is not finite by None, at any depth."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return value
