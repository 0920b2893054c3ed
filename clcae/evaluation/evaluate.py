"""What an evaluation is made of: who is judged, on which pictures, and what tells rows apart.

A digest stands for all that decides a row's values, so that a row is not measured twice.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clcae.data.folder import ImageFolder
from clcae.data.sources import ImageSource
from clcae.evaluation.observation import MethodObserver, PairedFolders
from clcae.evaluation.preparation import Size
from clcae.evaluation.protocol import Protocol
from clcae.evaluation.rows import Row, read_rows
from clcae.evaluation.sharded import read_batches
from clcae.evaluation.tally import Observations
from clcae.methods.interface import InversionMethod
from clcae.metrics.cost import (
    count_operations,
    count_parameters,
    time_per_image,
    timing_words,
)

LARGEST_BATCH = 64


@dataclass(frozen=True)
class Subject:
    """What is judged.

    Args:
        name: In rows.
        source: The pictures.
        observe: Of a batch, for these spaces.
        spaces: A row each.
        size: Height and width at which pictures are compared, before any preparation.
        batch_size: Pictures at once.
        weights: sha256 of the method's weights; None where files are judged.
        observer: The method's; None where files are judged, which have no time.
    """

    name: str
    source: ImageSource
    observe: Callable[[Tensor], Observations]
    spaces: tuple[str, ...]
    size: Size
    batch_size: int
    weights: str | None = None
    observer: MethodObserver | None = field(default=None)


def canvas(protocol: Protocol, *, shape: Size, resolution: int, files: Size, enlarge: bool) -> Size:
    """Height and width at which pictures of a folder are read and compared.

    Args:
        protocol: Says whether they are as large as the method reads or as the generator makes them.
        shape: What the method reads.
        resolution: Of the generator.
        files: The smallest file.
        enlarge: Whether files may be enlarged.

    Returns:
        `shape`, or that of the generator's pictures where files are large enough, or the largest
        that a metric asks for where they are not.
    """
    if protocol.pictures == "input":
        return shape
    full = _scaled(shape, resolution)
    if enlarge or (files[0] >= full[0] and files[1] >= full[1]):
        return full
    asked = [spec.preparation.size for spec in protocol.measures if spec.preparation is not None]
    if None in asked:
        return full
    return _scaled(shape, max(max(s) if isinstance(s, tuple) else s for s in asked if s))


def default_batch(method: InversionMethod) -> int:
    """Pictures at once that a generator of this resolution has room for."""
    return min(LARGEST_BATCH, method.generator.at_once)


def chosen_outputs(method: InversionMethod, outputs: str | Sequence[str] | None) -> tuple[str, ...]:
    """The outputs asked for, in the method's order.

    Raises:
        ValueError: If the method has not one of them, or none is asked for.
    """
    if outputs is None:
        return tuple(method.outputs)
    asked = [outputs] if isinstance(outputs, str) else list(outputs)
    for output in asked:
        method.with_output(str(output))  # says which there are
    if not asked:
        raise ValueError(f"outputs is empty: expected some of {', '.join(method.outputs)}")
    return tuple(output for output in method.outputs if output in asked)


def source_digest(source: ImageSource) -> str:
    """sha256 over the names of the images, and the sizes of their files where they are files."""
    digest = hashlib.sha256()
    for index in range(len(source)):
        digest.update(f"{source.name(index)}\n".encode())
    for path in _files(source):
        digest.update(f"{path.stat().st_size if path.is_file() else 0}\n".encode())
    return digest.hexdigest()


def digest_of(facts: Mapping[str, Any]) -> str:
    """sha256 over facts that JSON can hold."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def finished_rows(results: Path, digest: str, *, again: bool) -> dict[str, Row]:
    """The rows of a digest that are in the results, by space, the latest of each.

    Args:
        results: The file of rows.
        digest: Of the evaluation.
        again: Whether they are to be measured again: then there are none.

    Raises:
        ValueError: If the file is damaged.
    """
    if again or not results.exists() or not results.stat().st_size:
        return {}
    return {row.space: row for row in read_rows(results) if row.extra.get("digest") == digest}


def states_folder(results: Path, digest: str, spaces: Sequence[str], save: str | None) -> Path:
    """Where the states of a pass lie until all are there, beside the results."""
    own = digest_of({"digest": digest, "spaces": list(spaces), "save": save})
    return results.with_name(f"{results.name}.unfinished") / own[:16]


def with_time(
    rows: Mapping[str, Row], subject: Subject, *, batch: int, device: torch.device
) -> dict[str, Row]:
    """The rows with what an image costs: time, operations, parameters; those of files cost nothing.

    Milliseconds are those of a batch divided by its images, operations those of one image.
    """
    observer = subject.observer
    starts = range(0, len(subject.source), batch)
    batches = [range(start, min(start + batch, len(subject.source))) for start in starts]
    images = next((i for _, i, _ in read_batches(subject.source, batches) if i is not None), None)
    if observer is None or images is None:
        return dict(rows)
    inputs = observer.inputs(images.to(device))
    words = timing_words(device, batch=len(inputs))
    size = {"direction": "lower", "counted": "all, the generator's included"}
    work = {"direction": "lower", "counted": "a multiplication with its addition as 2"}
    timed = {}
    for space, row in rows.items():
        reconstruct = _reconstruct(observer, space)
        operations = count_operations(reconstruct, inputs[:1]).total
        with torch.inference_mode():
            milliseconds = time_per_image(reconstruct, inputs)
        cost = {
            "ms": milliseconds,
            "GFLOP": operations / 1e9,
            "M parameters": count_parameters(observer.method) / 1e6,
        }
        timed[space] = replace(
            row,
            metrics={**row.metrics, **cost},
            protocol={**row.protocol, "ms": words, "GFLOP": work, "M parameters": size},
        )
    return timed


def with_missing(row: Row, names: Sequence[str], missing: Mapping[str, str]) -> Row:
    """The row with its metrics in order, those that could not be taken as NaN with the reason."""
    values = {name: row.metrics.get(name, float("nan")) for name in names}
    values |= {name: value for name, value in row.metrics.items() if name not in values}
    if not missing:
        return replace(row, metrics=values)
    reasons = {**row.extra.get("without_value", {}), **missing}
    return replace(row, metrics=values, extra={**row.extra, "without_value": reasons})


def _reconstruct(observer: MethodObserver, space: str) -> Callable[[Tensor], Tensor]:
    return lambda inputs: observer.reconstruct(inputs, space)


def _files(source: ImageSource) -> list[Path]:
    if isinstance(source, PairedFolders):
        return [path for _, *pair in source.pairs for path in pair]
    if isinstance(source, ImageFolder):
        if not source.root.is_dir():
            return [source.root]
        return [source.root / source.name(index) for index in range(len(source))]
    return []


def _scaled(shape: Size, longer: int) -> Size:
    """A shape with another longer side."""
    factor = longer / max(shape)
    return round(shape[0] * factor), round(shape[1] * factor)
