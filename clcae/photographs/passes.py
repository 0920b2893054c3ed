"""A pass of a method over many files: threads read and write while the method computes.

A pass that was stopped goes on where it was, because every result appears complete or not at all.
"""

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from clcae.data.pictures import Item, pixels_of
from clcae.data.threads import BackgroundWriter, batched, in_order
from clcae.methods.interface import InversionMethod
from clcae.methods.inversion_file import Maker
from clcae.photographs.reader import Photograph, Stored
from clcae.picture_file import largest_pixels
from clcae.pretrained.assets import is_shipped
from clcae.pretrained.loading import load_method
from clcae.stylegan2.compilation import compiled
from clcae.weight_file import weights_digest

FAST = 1  # zlib level of pictures; the usual one takes longer than the model
THREADS = max(min(os.cpu_count() or 1, 8), 2)

Given = Photograph | Stored
Result = TypeVar("Result")


@dataclass
class Account:
    """Collects what became of each file of a command."""

    done: list[str] = field(default_factory=list)  # names
    kept: list[str] = field(default_factory=list)  # names finished by an earlier run
    skipped: list[tuple[Path, str]] = field(default_factory=list)  # file and reason

    def skip(self, path: Path, reason: object) -> None:
        """Records a skipped file with its reason in one line, without the path."""
        text = " ".join(str(reason).split())
        self.skipped.append((path, text.removeprefix(f"{path}: ")))

    def report(self) -> int:
        """Prints the counts and every skipped file; returns 1 where a file was skipped, else 0."""
        counts = [f"{len(self.done)} done"]
        if self.kept:
            counts.append(f"{len(self.kept)} finished before (--overwrite does them again)")
        if self.skipped:
            counts.append(f"{len(self.skipped)} skipped:")
        lines = [", ".join(counts), *(f"  {path}: {reason}" for path, reason in self.skipped)]
        print("\n".join(lines), file=sys.stderr if self.skipped else sys.stdout)
        return 1 if self.skipped else 0


def read_ahead(
    items: Iterable[Item],
    read: Callable[[Path], Result],
    account: Account,
    *,
    threads: int = 2,
    ahead: int = 32,
) -> Iterator[tuple[Item, Result]]:
    """Reads files ahead in threads and yields them in order; skips those that cannot be read.

    Args:
        items: the files.
        read: called in a thread; a ValueError or OSError skips the file.
        account: lists the skipped files.
        threads: reading at once.
        ahead: files read beyond the one that is yielded; bounds the memory.
    """
    reading = in_order(
        items,
        lambda item: read(item.path),
        threads=threads,
        ahead=ahead,
        weight=lambda item: pixels_of(item.path),
        heaviest=largest_pixels(),
    )
    for item, future in reading:
        try:
            result = future.result()
        except (ValueError, OSError) as error:
            account.skip(item.path, error)
        else:
            yield item, result
            del result
        del future  # and with it what was read


def open_method(
    source: str, *, output: str | None, device: torch.device, compile: bool = False
) -> tuple[InversionMethod, Maker]:
    """Loads a method for inference, with the description that inversion files keep of it.

    Args:
        source: a file, or a shipped name such as portraits/clcae.
        output: "W", "W+", "F", ...; None is the method's own choice.
        device: where it computes.
        compile: run the generator through torch.compile.

    Raises:
        FileNotFoundError: if there is no such file or name.
        ValueError: if it holds no method, or none with this output.
    """
    method = load_method(source)
    if output is not None:
        method = method.with_output(output)
    maker = Maker(
        source=source if is_shipped(source) else Path(source).name,
        class_name=type(method).__name__,
        sha256=weights_digest(method),
        output=method.output,
    )
    method = method.to(device).for_inference()
    return (compiled(method) if compile else method), maker


def pass_over(
    items: Sequence[Item],
    method: InversionMethod,
    *,
    finished: Callable[[Item], bool],
    read: Callable[[Path], Given],
    compute: Callable[[list[Any]], Sequence[Result]],
    write: Callable[[Item, list[str], Any, list[Result]], None],
    batch_size: int | None = None,
    ahead: int = 32,
) -> int:
    """Reads, computes and writes, all three at once; prints the rate and the account.

    On a CPU two batches are computed at a time, each with half of the threads; that takes less time
    than one after the other with all of them, and twice the memory.

    Args:
        items: the files.
        method: what `compute` runs.
        finished: whether an earlier run has done a file.
        read: called in a thread for each file; returns its parts.
        compute: called with a batch of parts, of one file or several; returns a result for each.
        write: called in a thread with a file, the names of its parts (`part_names`), what was read
            of it, and the results of its parts.
        batch_size: parts at once; None takes 16, fewer where the generator's pictures are large.
        ahead: files read beyond the batch, and files not yet written; bounds the memory.

    Returns:
        The exit status: 1 where a file was skipped, else 0.
    """
    account, todo = Account(), []
    for item in items:
        try:
            if finished(item):
                account.kept.append(item.name)
            else:
                todo.append(item)
        except (ValueError, OSError) as error:
            account.skip(item.path, error)
    start = time.perf_counter()
    with (
        tqdm(total=len(todo), unit="image", disable=None) as bar,
        BackgroundWriter(threads=THREADS, pending=ahead) as writer,
    ):

        def settle(item: Item, written: "Future[object]") -> None:
            try:
                written.result()
                account.done.append(item.name)
            except (ValueError, OSError) as error:
                account.skip(item.path, error)
            bar.update()

        files = read_ahead(todo, read, account, threads=min(THREADS, 4), ahead=ahead)
        parts = ((item, given, part) for item, given in files for part in given.parts)
        batches = batched(
            parts,
            batch_size or min(16, method.generator.at_once),
            weight=lambda entry: _kept(entry[1]) if entry[2] is entry[1].parts[0] else 0,
            heaviest=largest_pixels(),
        )
        on_cpu = method.device.type == "cpu"
        of_file: list[Result] = []
        kept = 0  # pixels of photographs that are being written
        for batch, results in _computed(batches, compute, lanes=2 if on_cpu else 1):
            for (item, given, _), result in zip(batch, results, strict=True):
                of_file.append(result)
                if len(of_file) == len(given.parts):
                    if (kept := kept + _kept(given)) > largest_pixels():
                        writer.wait()
                        kept = _kept(given)
                    names = part_names(item.name, len(of_file))
                    writer.add(partial(write, item, names, given, of_file), partial(settle, item))
                    of_file = []
    count, seconds = len(account.done), time.perf_counter() - start
    if count:
        print(f"{count} images in {seconds:.1f} s ({count / seconds:.1f} images/s)")
    return account.report()


def _kept(given: Given) -> int:
    """Counts the pixels of a photograph that is kept whole."""
    image = given.image if isinstance(given, Photograph) else None
    return 0 if image is None else image[0].numel()


def _computed(
    batches: Iterable[list[tuple[Item, Given, Any]]],
    compute: Callable[[list[Any]], Sequence[Result]],
    *,
    lanes: int,
) -> Iterator[tuple[list[tuple[Item, Given, Any]], Sequence[Result]]]:
    """Yields batches with their results, in order; `lanes` batches are computed at a time."""
    whole = torch.get_num_threads()

    def result(batch: list[tuple[Item, Given, Any]]) -> Sequence[Result]:
        torch.set_num_threads(max(whole // lanes, 1))  # of this thread and those it begins
        with torch.inference_mode():
            return compute([part for _, _, part in batch])

    try:
        for batch, future in in_order(batches, result, threads=lanes, ahead=lanes):
            yield batch, future.result()
    finally:
        torch.set_num_threads(whole)


def part_names(name: str, count: int) -> list[str]:
    """Names the results of a file's parts: NAME, or NAME-0, NAME-1, ... of several faces."""
    return [name] if count == 1 else [f"{name}-{number}" for number in range(count)]


def check_names(items: Sequence[Item], endings: Sequence[str]) -> None:
    """Refuses files whose results would be taken for further results of another one.

    Further results are named NAME-ENDING; `endings` are patterns such as "strip".

    Raises:
        ValueError: if there is such a file.
    """
    names = {item.name.casefold() for item in items}
    for item in items:
        for ending in endings:
            match = re.fullmatch(f"(.+)-{ending}", item.name.casefold())
            if match and match[1] in names:
                raise ValueError(
                    f"{item.path}: its results would be mixed with those of {match[1]!r}: rename it"
                )
