"""A pass over a whole data set that can be shared among processes, stopped and continued.

The images are cut into batches and the batches into parts, always the same ones, whoever does them.
Of R processes each takes every R-th part and leaves its state in a folder; in the end the parts are
merged in their order. So the values do not depend, to the last digit, on the number of processes,
nor on whether one was stopped; they do on the number of threads of a process, in the eighth digit,
as sums within a network do. The folder is to be one that all processes see. A state is a file of
tensors (safetensors) and JSON: values come back bit for bit, and nothing in it is executed.
"""

import hashlib
import json
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clcae.data.sources import ImageSource
from clcae.data.threads import BackgroundWriter, in_order
from clcae.evaluation.rows import Row
from clcae.evaluation.tally import RECONSTRUCTION, Measure, Observations, Tally
from clcae.files import is_locked, replacing
from clcae.images import write_png
from clcae.metrics.moments import Moments
from clcae.metrics.reservoir import Reservoir
from clcae.ops.memory import release_freed_memory

THREADS = 2  # that read, and as many that write
AHEAD = 2  # batches that are read before they are asked for
PENDING = 64  # pictures that wait to be written
RELEASE_EVERY = 128  # images; what is released has to be paged in again
ABANDONED = 7 * 24 * 3600  # seconds after which nobody is expected to continue
_KEY, _DIGEST = "clcae-evaluation", "clcae-sha256"
_OWN_FOLDER = re.compile(r"[0-9a-f]{16}")
_OWN_FILE = re.compile(r"part-\d{3,}\.safetensors|\.part-.+\.partial")
_log = logging.getLogger(__name__)

Batch = tuple[list[str], Tensor | None, dict[str, str]]  # names, images, left out: name -> why


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


class EvaluationPass:
    """Observes and measures every image of a source.

    Args:
        source: the images; what cannot be read is left out and named.
        observe: images [N, ...] on `device` to what the measures read.
        measures: by name.
        batch_size: images at once. Values do not depend on it, except in the last digits.
        folder: for the states, made when needed; None keeps them in memory, in one process.
        device: where `observe` and the networks are.
        num_parts: how many parts; more than that many processes are not busy.
        save_every: images after which the state of a part is written.
        pictures: folder of reconstructions, SPACE/NAME.png; None keeps none.
        progress: called with the number of images of a batch that was done, or found done.

    Raises:
        ValueError: if the source is empty or a number is not positive.
    """

    def __init__(
        self,
        *,
        source: ImageSource,
        observe: Callable[[Tensor], Observations],
        measures: Mapping[str, Measure],
        batch_size: int,
        folder: Path | None,
        device: torch.device | str = "cpu",
        num_parts: int = 8,
        save_every: int = 512,
        pictures: Path | None = None,
        progress: Callable[[int], object] = lambda _: None,
    ) -> None:
        if len(source) == 0 or min(batch_size, num_parts, save_every) < 1:
            raise ValueError(
                f"{len(source)} images in batches of {batch_size}, {num_parts} parts, saved every "
                f"{save_every} images: nothing to evaluate"
            )
        self.source, self.observe, self.measures = source, observe, dict(measures)
        self.folder, self.device, self.save_every = folder, device, save_every
        self.pictures, self.progress = pictures, progress
        self._files = _file_names(source) if pictures else {}
        self._in_memory: dict[int, Part] = {}
        starts = range(0, len(source), batch_size)
        batches = [range(start, min(start + batch_size, len(source))) for start in starts]
        ends = [len(batches) * part // num_parts for part in range(num_parts + 1)]
        cut = [batches[start:end] for start, end in pairwise(ends)]
        self.parts = [part for part in cut if part]

    @torch.inference_mode()
    def run(self, *, rank: int = 0, world_size: int = 1) -> None:
        """Does the parts of one process; finished batches of a part are not repeated."""
        for number in range(rank, len(self.parts), world_size):
            self._do(number)

    def merged(self) -> Part:
        """Merges all parts in their order.

        Raises:
            FileNotFoundError: if one is missing.
            ValueError: if one is damaged or not finished, or no image could be read.
        """
        whole = Part(Tally(self.measures))
        for number, batches in enumerate(self.parts):
            part = self._in_memory.get(number) or read_part(self._path(number), self.measures)
            if part.batches != len(batches):
                raise ValueError(f"{self._path(number)} is not finished: run the command again")
            whole.join(part)
        if whole.num_images == 0:
            name, reason = next(iter(whole.left_out.items()))
            raise ValueError(f"none of {len(self.source)} pictures can be read: {name}: {reason}")
        return whole

    def clear(self) -> None:
        """Removes the states."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            with suppress(OSError):  # others may have theirs beside it
                self.folder.parent.rmdir()

    def _do(self, number: int) -> None:
        batches, part = self.parts[number], Part(Tally(self.measures))
        if self.folder is not None and self._path(number).is_file():
            try:
                part = read_part(self._path(number), self.measures)
            except ValueError as error:
                _log.warning("%s: measured again", error)
        for batch in batches[: part.batches]:
            self.progress(len(batch))
        rest, saved, unreleased = batches[part.batches :], part.num_images, 0
        with BackgroundWriter(threads=THREADS, pending=PENDING) as writer:
            for names, images, left_out in read_batches(self.source, rest):
                if images is not None:
                    observed = self.observe(images.to(self.device))
                    part.tally.update(observed, names)
                    self._keep_pictures(observed, names, writer)
                part.num_images += len(names)
                part.left_out |= left_out
                part.batches += 1
                finished = part.batches == len(batches)
                if part.num_images - saved >= self.save_every or finished:
                    writer.wait()
                    part, saved = self._saved(part, number), part.num_images
                unreleased += len(names)
                if unreleased >= RELEASE_EVERY or finished:
                    release_freed_memory()  # what is kept drifts upwards with every batch
                    unreleased = 0
                self.progress(len(names) + len(left_out))

    def _saved(self, part: Part, number: int) -> Part:
        """Saves a part and returns what to continue from, the same whether stopped or not."""
        if self.folder is None:
            self._in_memory[number] = part
            return part
        write_part(part, self._path(number))
        # What is read back has another rounding: continue from that.
        whole = Part(Tally(self.measures))
        whole.join(part)
        return whole

    def _keep_pictures(
        self, observed: Observations, names: Sequence[str], writer: BackgroundWriter
    ) -> None:
        if self.pictures is None:
            return
        for space, streams in observed.items():
            for name, picture in zip(names, streams[RECONSTRUCTION][0].cpu(), strict=True):
                path = self.pictures / space / f"{self._files[name]}.png"
                writer.add(partial(write_png, picture, path, compress_level=1))

    def _path(self, number: int) -> Path:
        assert self.folder is not None
        return self.folder / f"part-{number:03d}.safetensors"


def evaluate(
    outputs: Callable[[Tensor], Mapping[str, Tensor]],
    source: ImageSource,
    *,
    method: str,
    measures: Mapping[str, Measure],
    batch_size: int,
    device: torch.device | str = "cpu",
) -> dict[str, Row]:
    """Measures the reconstructions of every image of a source, in memory and in one process.

    Reconstructions have the shape of the images, one for each space: {"W": ..., "F": ...}, in whose
    order the rows come. What is left out of the source is named in the rows.

    Raises:
        ValueError: if nothing can be read, or as `Tally.update` and `EvaluationPass`.
    """

    def observe(images: Tensor) -> Observations:
        return {space: {RECONSTRUCTION: (made, images)} for space, made in outputs(images).items()}

    evaluation = EvaluationPass(
        source=source,
        observe=observe,
        measures=measures,
        batch_size=batch_size,
        folder=None,
        device=device,
        num_parts=1,
        save_every=len(source) or 1,
    )
    evaluation.run()
    whole = evaluation.merged()
    extra = {"left_out": whole.left_out} if whole.left_out else {}
    return whole.tally.rows(method=method, num_images=whole.num_images, extra=extra)


def read_batches(source: ImageSource, batches: Sequence[Sequence[int]]) -> Iterator[Batch]:
    """Reads batches ahead in threads, in their order.

    Yields names of images that could be read, these or None, and the others' names and reasons.
    """
    for _, future in in_order(batches, partial(_read, source), threads=THREADS, ahead=AHEAD):
        yield future.result()


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


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Computes sha256 over the description and the tensors of a part."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read(source: ImageSource, indices: Sequence[int]) -> Batch:
    names = [source.name(index) for index in indices]
    try:
        return names, source.images(indices), {}
    except (ValueError, OSError):
        pass  # one by one, to know which
    read, images, left_out = [], [], {}
    for index, name in zip(indices, names, strict=True):
        try:
            images.append(source.images([index]))
            read.append(name)
        except (ValueError, OSError) as error:
            left_out[name] = " ".join(str(error).split())
    return read, torch.cat(images) if images else None, left_out


def _file_names(source: ImageSource) -> dict[str, str]:
    """Maps names to files without suffix; the old suffix stays where names differ in it alone."""
    names = [source.name(index) for index in range(len(source))]
    stems = [str(Path(name).with_suffix("")) for name in names]
    count: dict[str, int] = {}
    for stem in stems:
        count[stem] = count.get(stem, 0) + 1
    return {n: s if count[s] == 1 else n for n, s in zip(names, stems, strict=True)}


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
