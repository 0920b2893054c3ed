"""A pass over a whole data set that can be shared among processes, stopped and continued.

The images are cut into batches and the batches into parts, always the same ones, whoever does them.
Of R processes each takes every R-th part and leaves its state in a folder; in the end the parts are
merged in their order. So the values do not depend, to the last digit, on the number of processes,
nor on whether one was stopped; they do on the number of threads of a process, in the eighth digit,
as sums within a network do. The folder is to be one that all processes see.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from clcae.data.sources import ImageSource
from clcae.data.threads import BackgroundWriter, read_batches
from clcae.evaluation.rows import Row
from clcae.evaluation.states import Part, States
from clcae.evaluation.tally import RECONSTRUCTION, Measure, Observations, Tally
from clcae.files import leftovers
from clcae.images import write_png
from clcae.ops.memory import release_freed_memory

THREADS = 2  # that write
PENDING = 64  # pictures that wait to be written
RELEASE_EVERY = 128  # images; what is released has to be paged in again
Result = TypeVar("Result")


class Processes(Protocol):
    """The processes that share a pass; `training.distributed` is those of torchrun."""

    def rank(self) -> int:
        """Returns the index of this process."""
        ...

    def world_size(self) -> int:
        """Returns the number of processes."""
        ...

    def is_main(self) -> bool:
        """Returns whether this is the process that writes results."""
        ...

    def barrier(self) -> None:
        """Waits for all processes."""
        ...

    def on_main(self, function: Callable[[], Result]) -> Result:
        """Runs a function in the main process alone and returns its result in every process."""
        ...


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
    ) -> None:
        if len(source) == 0 or min(batch_size, num_parts, save_every) < 1:
            raise ValueError(
                f"{len(source)} images in batches of {batch_size}, {num_parts} parts, saved every "
                f"{save_every} images: nothing to evaluate"
            )
        self._files = _file_names(source) if pictures else {}
        self.source, self.observe, self.measures = source, observe, dict(measures)
        self.states, self.device = States(folder, measures), device
        self.save_every, self.pictures = save_every, pictures
        starts = range(0, len(source), batch_size)
        batches = [range(start, min(start + batch_size, len(source))) for start in starts]
        ends = [len(batches) * part // num_parts for part in range(num_parts + 1)]
        cut = [batches[start:end] for start, end in pairwise(ends)]
        self.parts = [part for part in cut if part]

    @contextmanager
    def alone(self, *, waits: Callable[[], object]) -> Iterator[None]:
        """Waits until no other process does this pass; removes what killed ones left.

        Args:
            waits: called once if another process does it.
        """
        with self.states.alone(waits=waits) as held:
            if held and self.pictures is not None:
                for leftover in leftovers(self.pictures, "*.png"):
                    leftover.unlink(missing_ok=True)
            yield

    @torch.inference_mode()
    def run(
        self,
        *,
        rank: int = 0,
        world_size: int = 1,
        progress: Callable[[int], object] = lambda _: None,
    ) -> None:
        """Does the parts of one process; finished batches of a part are not repeated.

        Args:
            rank: index of the process.
            world_size: number of processes.
            progress: called with the number of images of a batch that was done, or found done.
        """
        for number in range(rank, len(self.parts), world_size):
            self._do(number, progress)

    def merged(self) -> Part:
        """Merges all parts in their order.

        Raises:
            FileNotFoundError: if one is missing.
            ValueError: if one is damaged or not finished, or no image could be read.
        """
        whole = Part(Tally(self.measures))
        for number, batches in enumerate(self.parts):
            part = self.states.read(number)
            if part.batches != len(batches):
                raise ValueError(
                    f"{self.states.path(number)} is not finished: run the command again"
                )
            whole.join(part)
        if whole.num_images == 0:
            name, reason = next(iter(whole.left_out.items()))
            raise ValueError(f"none of {len(self.source)} pictures can be read: {name}: {reason}")
        return whole

    def _do(self, number: int, progress: Callable[[int], object]) -> None:
        batches, part = self.parts[number], self.states.resumed(number)
        for batch in batches[: part.batches]:
            progress(len(batch))
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
                    part, saved = self.states.save(number, part), part.num_images
                unreleased += len(names)
                if unreleased >= RELEASE_EVERY or finished:
                    release_freed_memory()  # what is kept drifts upwards with every batch
                    unreleased = 0
                progress(len(names) + len(left_out))

    def _keep_pictures(
        self, observed: Observations, names: Sequence[str], writer: BackgroundWriter
    ) -> None:
        if self.pictures is None:
            return
        for space, streams in observed.items():
            for name, picture in zip(names, streams[RECONSTRUCTION][0].cpu(), strict=True):
                path = self.pictures / space / f"{self._files[name]}.png"
                writer.add(partial(write_png, picture, path, compress_level=1))


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


def _file_names(source: ImageSource) -> dict[str, str]:
    """Maps names to files without suffix; the old suffix stays where names differ in it alone."""
    names = [source.name(index) for index in range(len(source))]
    stems = [str(Path(name).with_suffix("")) for name in names]
    count: dict[str, int] = {}
    for stem in stems:
        count[stem] = count.get(stem, 0) + 1
    return {n: s if count[s] == 1 else n for n, s in zip(names, stems, strict=True)}
