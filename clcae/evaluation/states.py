"""The states of a pass's parts: files of a folder that one pass at a time has, or in memory.

A state is a file of tensors (safetensors) and JSON: values come back bit for bit, and nothing in it
is executed.
"""

import hashlib
import json
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clcae.evaluation.tally import Measure, Tally
from clcae.files import is_locked, leftovers, locked, replacing
from clcae.metrics.moments import Moments
from clcae.metrics.reservoir import Reservoir

ABANDONED = 7 * 24 * 3600  # seconds after which nobody is expected to continue
_KEY, _DIGEST = "clcae-evaluation", "clcae-sha256"
_OWN_FOLDER = re.compile(r"[0-9a-f]{16}")
_OWN_FILE = re.compile(r"part-\d{3,}\.safetensors|\.part-.+\.partial")
_log = logging.getLogger(__name__)


@dataclass
class Part:
    """State of a part of an evaluation, finished or not."""

    tally: Tally
    batches: int = 0  # that entered
    num_images: int = 0  # that entered
    left_out: dict[str, str] = field(default_factory=dict)  # unreadable images: name -> why

    def join(self, other: "Part") -> None:
        """Merges another part."""
        tally = other.tally
        self.tally.take(tally.states(), tally.skipped, tally.shapes)
        self.batches += other.batches
        self.num_images += other.num_images
        self.left_out |= other.left_out


class States:
    """Keeps the states of the parts of one pass, by the parts' numbers.

    Args:
        folder: for files of them, made when needed, NAME.unfinished/DIGEST; None keeps them in
            memory, in one process.
        measures: of the pass, by name.
    """

    def __init__(self, folder: Path | None, measures: Mapping[str, Measure]) -> None:
        self.folder, self.measures = folder, measures
        self._in_memory: dict[int, Part] = {}

    @contextmanager
    def alone(self, *, waits: Callable[[], object]) -> Iterator[bool]:
        """Holds the folder against other processes; removes what killed ones left in and beside it.

        Args:
            waits: called once if another process holds it.

        Yields:
            Whether it is held: False where the system or the disk has no locks.
        """
        assert self.folder is not None
        with locked(self.folder, waits=waits) as held:
            if held:
                for leftover in leftovers(self.folder):
                    leftover.unlink(missing_ok=True)
                collect_unfinished(self.folder.parent)
            try:
                yield held
            finally:
                for folder in (self.folder, self.folder.parent):
                    with suppress(OSError):  # it is not empty
                        folder.rmdir()

    def read(self, number: int) -> Part:
        """Reads the state of a part. Raises as `read_part`."""
        return self._in_memory.get(number) or read_part(self.path(number), self.measures)

    def resumed(self, number: int) -> Part:
        """Reads what a stopped pass saved of a part; an empty one if there is nothing sound."""
        if self.folder is not None and self.path(number).is_file():
            try:
                return self.read(number)
            except ValueError as error:
                _log.warning("%s: measured again", error)
        return Part(Tally(self.measures))

    def save(self, number: int, part: Part) -> Part:
        """Saves a part and returns what to continue from, the same whether stopped or not."""
        if self.folder is None:
            self._in_memory[number] = part
            return part
        write_part(part, self.path(number))
        # What is read back has another rounding: continue from that.
        whole = Part(Tally(self.measures))
        whole.join(part)
        return whole

    def clear(self) -> None:
        """Removes the folder."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            with suppress(OSError):  # others may have theirs beside it
                self.folder.parent.rmdir()

    def path(self, number: int) -> Path:
        """Names the file of a part."""
        assert self.folder is not None
        return self.folder / f"part-{number:03d}.safetensors"


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
    text = json.dumps(description)
    metadata = {_KEY: text, _DIGEST: _digest(text, tensors)}
    with replacing(path) as unfinished:
        save_file(tensors, unfinished, metadata=metadata)


def read_part(path: Path, measures: Mapping[str, Measure]) -> Part:
    """Reads a part.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or of other measures.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a part of an evaluation")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if metadata[_DIGEST] != _digest(metadata[_KEY], tensors):
            raise ValueError("its bytes have changed since they were written")
        description = json.loads(metadata[_KEY])
        states = {
            space: {name: _unpacked(state, tensors) for name, state in metrics.items()}
            for space, metrics in description["states"].items()
        }
        shapes = {stream: (h, w) for stream, (h, w) in description["shapes"].items()}
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
        raise ValueError(f"{path}: a damaged part of an evaluation ({reason})") from error


def collect_unfinished(root: Path) -> None:
    """Removes the parts of evaluations that nobody has continued for a week.

    Only folders that hold nothing but parts are removed, and none that a process is working in.

    Args:
        root: the folder NAME.unfinished beside the results.
    """
    for folder in root.iterdir():
        if not _OWN_FOLDER.fullmatch(folder.name) or not folder.is_dir() or is_locked(folder):
            continue
        inside = [path for path in folder.rglob("*") if not path.is_dir()]
        ours = all(_OWN_FILE.fullmatch(path.name) for path in inside)
        latest = max(path.lstat().st_mtime for path in [folder, *inside])
        if ours and time.time() - latest > ABANDONED:
            shutil.rmtree(folder, ignore_errors=True)


def remove_finished(folder: Path) -> None:
    """Removes the states of a pass that is finished, unless a process works in their folder.

    Args:
        folder: NAME.unfinished/DIGEST; there may be none.
    """

    def leave() -> None:
        raise BlockingIOError

    if folder.is_dir():
        with suppress(BlockingIOError), locked(folder, waits=leave) as held:
            if held:
                shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # others have theirs in it
        folder.parent.rmdir()


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Computes sha256 over the description and the tensors of a part."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _packed(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """Replaces the tensors of a state, at any depth, by names of their places in `tensors`."""
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
