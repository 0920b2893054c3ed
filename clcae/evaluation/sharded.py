"""A pass over a whole data set that can be shared among processes, stopped and continued.

The images are cut into batches and the batches into parts, always the same ones, whoever does them.
Of R processes each takes every R-th part and leaves its state in a folder; in the end the parts are
merged in their order. So the values do not depend, to the last digit, on the number of processes,
nor on whether one was stopped; they do on the number of threads of a process, in the eighth digit,
as sums within a network do. The folder is to be one that all processes see.
"""

import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from clcae.data.sources import ImageSource
from clcae.evaluation.states import Part, read_part, write_part
from clcae.evaluation.tally import RECONSTRUCTION, Measure, Observations, Tally
from clcae.images import write_png
from clcae.ops.memory import release_freed_memory

THREADS = 2  # that read, and as many that write
AHEAD = 2  # batches that are read before they are asked for
PENDING = 64  # pictures that wait to be written
RELEASE_EVERY = 128  # images; what is released has to be paged in again


class EvaluationPass:
    """Every image of a source, observed and judged.

    Args:
        source: The images; what cannot be read is left out and named.
        observe: Images [N, ...] on `device` to what the measures read.
        measures: By name.
        batch_size: Images at once. Values do not depend on it, except in the last digits.
        folder: Of the states; it is made.
        device: Where `observe` and the networks are.
        num_parts: How many parts; more than that many processes are not busy.
        save_every: Images after which the state of a part is written.
        pictures: Folder of reconstructions, SPACE/NAME.png; None keeps none.
        progress: Called with the number of images of a batch that was done, or found done.

    Raises:
        ValueError: If the source is empty or a number is not positive.
    """

    def __init__(
        self,
        *,
        source: ImageSource,
        observe: Callable[[Tensor], Observations],
        measures: Mapping[str, Measure],
        batch_size: int,
        folder: Path,
        device: torch.device | str = "cpu",
        num_parts: int = 8,
        save_every: int = 512,
        pictures: Path | None = None,
        progress: Callable[[int], object] | None = None,
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
        starts = range(0, len(source), batch_size)
        batches = [range(start, min(start + batch_size, len(source))) for start in starts]
        ends = [len(batches) * part // num_parts for part in range(num_parts + 1)]
        cut = [batches[start:end] for start, end in pairwise(ends)]
        self.parts = [part for part in cut if part]

    @torch.inference_mode()
    def run(self, *, rank: int = 0, world_size: int = 1) -> None:
        """Does the parts of one process; those that were done, or begun, are not done again."""
        for number in range(rank, len(self.parts), world_size):
            self._do(number)

    def merged(self) -> Part:
        """All parts as one, in their order.

        Raises:
            FileNotFoundError: If one is missing.
            ValueError: If one is damaged or not finished, or no image could be read.
        """
        whole = self._fresh()
        for number, batches in enumerate(self.parts):
            part = read_part(self._path(number), self.measures)
            if part.batches != len(batches):
                raise ValueError(f"{self._path(number)} is not finished: run the command again")
            whole.join(part)
        if whole.num_images == 0:
            name, reason = next(iter(whole.left_out.items()))
            raise ValueError(f"none of {len(self.source)} pictures can be read: {name}: {reason}")
        return whole

    def clear(self) -> None:
        """Removes the states."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):  # others may have theirs beside it
            self.folder.parent.rmdir()

    def _do(self, number: int) -> None:
        batches, path = self.parts[number], self._path(number)
        part = read_part(path, self.measures) if path.is_file() else self._fresh()
        for batch in batches[: part.batches]:
            self._say(len(batch))
        rest, saved, unreleased = batches[part.batches :], part.num_images, 0
        with _Pictures(self.pictures, self._files) as pictures:
            for names, images, left_out in read_batches(self.source, rest):
                if images is not None:
                    observed = self.observe(images.to(self.device))
                    part.tally.update(observed, names)
                    pictures.add(observed, names)
                part.num_images += len(names)
                part.left_out |= left_out
                part.batches += 1
                if part.num_images - saved >= self.save_every or part.batches == len(batches):
                    pictures.wait()
                    write_part(part, path)
                    # What is read back has another rounding: continue from that, stopped or not.
                    whole, saved = self._fresh(), part.num_images
                    whole.join(part)
                    part = whole
                unreleased += len(names)
                if unreleased >= RELEASE_EVERY or part.batches == len(batches):
                    release_freed_memory()  # what is kept drifts upwards with every batch
                    unreleased = 0
                self._say(len(names) + len(left_out))

    def _say(self, count: int) -> None:
        if self.progress is not None:
            self.progress(count)

    def _fresh(self) -> Part:
        return Part(tally=Tally(self.measures))

    def _path(self, number: int) -> Path:
        return self.folder / f"part-{number:03d}.safetensors"


def read_batches(
    source: ImageSource, batches: Sequence[Sequence[int]]
) -> Iterator[tuple[list[str], Tensor | None, dict[str, str]]]:
    """Reads batches ahead in threads.

    Yields:
        The names of the images that could be read, the images [N, ...] or None where there is
        none, and the others' names with the reason; in the order of the batches.
    """
    waiting: deque[Future[tuple[list[str], Tensor | None, dict[str, str]]]] = deque()
    pool = ThreadPoolExecutor(THREADS)
    try:
        for batch in batches:
            waiting.append(pool.submit(_read, source, batch))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _read(
    source: ImageSource, indices: Sequence[int]
) -> tuple[list[str], Tensor | None, dict[str, str]]:
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


class _Pictures:
    """Writes reconstructions in threads; nothing where no folder is given."""

    def __init__(self, folder: Path | None, files: Mapping[str, str]) -> None:
        self.folder, self.files = folder, files
        self._pool = ThreadPoolExecutor(THREADS)
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> "_Pictures":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def add(self, observed: Observations, names: Sequence[str]) -> None:
        """Has the reconstructions of a batch written, each rounded to 256 levels."""
        if self.folder is None:
            return
        for space, streams in observed.items():
            for name, picture in zip(names, streams[RECONSTRUCTION][0].cpu(), strict=True):
                path = self.folder / space / f"{self.files[name]}.png"
                self._waiting.append(self._pool.submit(write_png, picture, path, compress_level=1))
                if len(self._waiting) > PENDING:
                    self._waiting.popleft().result()

    def wait(self) -> None:
        """Until all are written. Raises what a write raised."""
        while self._waiting:
            self._waiting.popleft().result()


def _file_names(source: ImageSource) -> dict[str, str]:
    """Name -> name of its file without suffix; the old suffix stays where names differ in it."""
    names = [source.name(index) for index in range(len(source))]
    stems = [str(Path(name).with_suffix("")) for name in names]
    count: dict[str, int] = {}
    for stem in stems:
        count[stem] = count.get(stem, 0) + 1
    return {n: s if count[s] == 1 else n for n, s in zip(names, stems, strict=True)}
