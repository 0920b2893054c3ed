"""A pass of a method over many files: threads read and write while the method computes.

A pass that was stopped goes on where it was, because every result appears complete or not at all.
"""

import errno
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from tqdm import tqdm

from clcae.command import is_out_of_memory
from clcae.data.pictures import Item, pixels_of
from clcae.data.threads import BackgroundWriter, batched, in_order
from clcae.files import FULL_DISK
from clcae.methods.interface import InversionMethod
from clcae.methods.inversion_file import Maker
from clcae.photographs.account import Account
from clcae.photographs.reader import Photograph, Stored
from clcae.photographs.results import Results
from clcae.picture_file import largest_pixels
from clcae.precision import resolve
from clcae.pretrained.loading import load_method
from clcae.stylegan2.compilation import compiled
from clcae.weight_file import weights_digest

FAST = 1  # zlib level of pictures; the usual one takes longer than the model
THREADS = max(min(os.cpu_count() or 1, 8), 2)
MOST_FAILED = 4  # parts in a row that cannot be computed; more are no fault of the files
FAULTS = (ValueError, OSError, MemoryError, RuntimeError)  # of one file; see `check_memory`
UNWRITABLE = FULL_DISK | {errno.EROFS}

Given = Photograph | Stored
Result = TypeVar("Result")


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
        read: called in a thread; a fault of a file (`FAULTS`) skips it.
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
        except FAULTS as error:
            check_memory(error)
            account.skip(item.path, error)
        else:
            yield item, result
            del result
        del future  # and with it what was read


def open_method(
    source: str,
    *,
    output: str | None,
    device: torch.device,
    precision: str = "float32",
    compile: bool = False,
    load: Callable[[str], InversionMethod] = load_method,
) -> tuple[InversionMethod, Maker]:
    """Loads a method for inference, with the description that inversion files keep of it.

    Args:
        source: a file, or a shipped name such as portraits/clcae.
        output: "W", "W+", "F", ...; None is the method's own choice.
        device: where it computes.
        precision: "float32", "bfloat16" or "auto" (`clcae.precision.resolve`); one line on stderr
            says what "auto" chose, or that the device has no bfloat16.
        compile: run the generator through torch.compile.
        load: loads or builds what `source` names.

    Raises:
        FileNotFoundError: if there is no such file or name.
        ValueError: if it holds no method, or none with this output.
    """
    computes_in, line = resolve(precision, device)
    method = load(source)
    if output is not None:
        method = method.with_output(output)
    maker = Maker(
        source=Path(source).name if Path(source).is_file() else source,
        class_name=type(method).__name__,
        sha256=weights_digest(method),
        output=method.output,
        precision=computes_in,
    )
    if line is not None:
        print(line, file=sys.stderr)
    method = method.to(device).for_inference(computes_in)
    return (compiled(method) if compile else method), maker


def pass_over(
    items: Sequence[Item],
    method: InversionMethod,
    *,
    results: Results,
    read: Callable[[Path], Given],
    compute: Callable[[list[Any]], Sequence[Result]],
    files: Callable[[list[str]], list[str]],
    write: Callable[[Item, list[str], Any, list[Result], list[Path]], None],
    batch_size: int | None = None,
    ahead: int = 32,
) -> int:
    """Reads, computes and writes, all three at once; prints the rate and the account.

    On a CPU two batches are computed at a time, each with half of the threads; that takes less time
    than one after the other with all of them, and twice the memory.

    Args:
        items: the files.
        method: what `compute` runs.
        results: where they lie, and which an earlier run has finished.
        read: called in a thread for each file; returns its parts.
        compute: called with a batch of parts, of one file or several; returns a result for each.
        files: names the files of an input after the names of its parts (`part_names`).
        write: called in a thread with a file, the names of its parts, what was read of it, the
            results of its parts, and the paths to write `files` to.
        batch_size: parts at once; None takes 16, fewer where the method or its generator is slow.
        ahead: files read beyond the batch, and files not yet written; bounds the memory.

    Returns:
        The exit status: 1 where a file was skipped, else 0.

    Raises:
        OSError: if the disk of the results is full or cannot be written.
    """
    account = results.account
    todo = unfinished(items, results.finished, account)
    account.announce()
    start = time.perf_counter()
    with (
        tqdm(total=len(todo), unit="image", disable=None) as bar,
        BackgroundWriter(threads=THREADS, pending=ahead) as writer,
    ):

        def deliver(item: Item, given: Given, of_file: list[Result]) -> None:
            names = part_names(item.name, len(of_file))
            with results.writing(item, given.sha256, files(names)) as paths:
                write(item, names, given, of_file, paths)

        def settle(item: Item, written: "Future[object]") -> None:
            try:
                written.result()
                account.done.append(item.name)
            except FAULTS as error:
                check_memory(error)
                check_disk(error)
                account.skip(item.path, error)
            bar.update()

        read_files = read_ahead(todo, read, account, threads=min(THREADS, 4), ahead=ahead)
        parts = ((item, given, part) for item, given in read_files for part in given.parts)
        batches = batched(
            parts,
            batch_size or min(16, method.at_once),
            weight=lambda entry: _kept(entry[1]) if entry[2] is entry[1].parts[0] else 0,
            heaviest=largest_pixels(),
        )
        on_cpu = method.device.type == "cpu"
        of_file: list[Result | Exception] = []
        kept = 0  # pixels of photographs that are being written
        for batch, computed in _computed(batches, compute, lanes=2 if on_cpu else 1):
            for (item, given, _), result in zip(batch, computed, strict=True):
                of_file.append(result)
                if len(of_file) < len(given.parts):
                    continue
                faults = [each for each in of_file if isinstance(each, Exception)]
                if faults:
                    account.skip(item.path, faults[0])
                    bar.update()
                else:
                    for reason in given.refused:
                        account.skip(item.path, reason)
                    if (kept := kept + _kept(given)) > largest_pixels():
                        writer.wait()
                        kept = _kept(given)
                    work = partial(deliver, item, given, cast("list[Result]", of_file))
                    writer.add(work, partial(settle, item))
                of_file = []
    count, seconds = len(account.done), time.perf_counter() - start
    if count:
        rate = count / seconds
        each = f"{rate:.1f} images/s" if rate >= 1 else f"{1 / rate:.1f} s each"
        print(f"{count} images in {seconds:.1f} s ({each})")
    return account.report()


def unfinished(
    items: Sequence[Item], finished: Callable[[Item], bool], account: Account
) -> list[Item]:
    """Returns the files that no earlier run has finished; their digests are computed in threads."""
    todo = []
    for item, future in in_order(items, finished, threads=min(THREADS, 4), ahead=64):
        try:
            if future.result():
                account.kept.append(item.name)
            else:
                todo.append(item)
        except (ValueError, OSError) as error:
            account.skip(item.path, error)
    return todo


def _kept(given: Given) -> int:
    """Counts the pixels of a photograph that is kept whole."""
    whole = given.whole if isinstance(given, Photograph) else None
    return 0 if whole is None else whole.pixels


def check_memory(error: BaseException) -> None:
    """Raises an error again that is a fault of ours: a RuntimeError of anything but memory."""
    if isinstance(error, RuntimeError) and not is_out_of_memory(error):
        raise error


def check_disk(error: BaseException) -> None:
    """Raises an error again that would end the writing of every file: a full or read-only disk."""
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        raise error


def _computed(
    batches: Iterable[list[tuple[Item, Given, Any]]],
    compute: Callable[[list[Any]], Sequence[Result]],
    *,
    lanes: int,
) -> Iterator[tuple[list[tuple[Item, Given, Any]], Sequence[Result | Exception]]]:
    """Yields batches with their results, in order; `lanes` batches are computed at a time.

    Where a batch fails, its parts are computed one by one, and those that fail have their error in
    the place of a result. Where several fail without one between that succeeds, the error is
    raised.
    """
    whole = torch.get_num_threads()
    failed = 0

    def result(batch: list[tuple[Item, Given, Any]]) -> Sequence[Result | Exception]:
        torch.set_num_threads(max(whole // lanes, 1))  # of this thread and those it begins
        parts = [part for _, _, part in batch]
        try:
            with torch.inference_mode():
                return compute(parts)
        except FAULTS as error:
            check_memory(error)
        return [one(part) for part in parts]  # outside, where the failed batch is freed

    def one(part: Any) -> Result | Exception:
        try:
            with torch.inference_mode():
                return compute([part])[0]
        except FAULTS as error:
            check_memory(error)
            return error

    try:
        for batch, future in in_order(batches, result, threads=lanes, ahead=lanes):
            computed = future.result()
            for each in computed:
                failed = failed + 1 if isinstance(each, Exception) else 0
                if failed > MOST_FAILED:
                    raise cast("Exception", each)
            yield batch, computed
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
