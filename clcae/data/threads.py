"""Thread pools with ordered results and bounded memory: reading ahead, writing behind; batches."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Self, TypeVar

import torch
from torch import Tensor

from clcae.data.sources import ImageSource

Batch = tuple[list[str], Tensor | None, dict[str, str]]  # names, images, left out: name -> why
Result = TypeVar("Result")
Element = TypeVar("Element")
_worker = threading.local()  # "abandoned": the event of the pool of this thread


class AbandonedError(Exception):
    """Nobody waits for the result of the running work any more."""


def check_wanted() -> None:
    """Raises AbandonedError in a worker of `in_order` once its results are not waited for.

    Work that takes long calls it, so that an interruption ends the work too. In other threads it
    does nothing.
    """
    abandoned: threading.Event | None = getattr(_worker, "abandoned", None)
    if abandoned is not None and abandoned.is_set():
        raise AbandonedError


def in_order(
    elements: Iterable[Element],
    work: Callable[[Element], Result],
    *,
    threads: int,
    ahead: int,
    weight: Callable[[Element], int] = lambda _: 0,
    heaviest: int = 1,
) -> "Iterator[tuple[Element, Future[Result]]]":
    """Runs `work` on elements in a thread pool and yields each with its future, in their order.

    Args:
        elements: consumed in the calling thread.
        work: called in a worker thread; what it raises is in the future. Where the iterator is left
            early, running work is waited for, which `check_wanted` ends.
        threads: size of the pool; each worker starts with one torch thread.
        ahead: elements submitted beyond the one that is yielded; bounds the memory.
        weight: what the result of an element takes of the memory.
        heaviest: the sum of weights that are submitted at a time; one element may exceed it alone.
    """
    waiting: deque[tuple[Element, Future[Result]]] = deque()
    weights: deque[int] = deque()
    abandoned = threading.Event()
    pool = _pool(threads, abandoned)
    try:
        for element in elements:
            added = weight(element)
            while waiting and sum(weights) + added > heaviest:
                yield waiting.popleft()
                weights.popleft()
            waiting.append((element, pool.submit(work, element)))
            weights.append(added)
            if len(waiting) > ahead:
                yield waiting.popleft()
                weights.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        abandoned.set()
        pool.shutdown(cancel_futures=True)


def read_batches(
    source: ImageSource,
    batches: Sequence[Sequence[int]],
    *,
    threads: int = 2,
    ahead: int = 2,
) -> Iterator[Batch]:
    """Reads batches ahead in threads, in their order.

    Yields names of images that could be read, these or None, and the others' names and reasons.
    """
    for _, future in in_order(batches, partial(_read, source), threads=threads, ahead=ahead):
        yield future.result()


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


class BackgroundWriter:
    """Runs writes in a thread pool, at most `pending` of them behind the caller.

    As a context manager it waits for all writes at the end of the block; after an exception it
    cancels those that have not begun.

    Args:
        threads: size of the pool; each worker has one torch thread.
        pending: unfinished writes at most; `add` waits for the oldest beyond that.
    """

    def __init__(self, *, threads: int, pending: int) -> None:
        self.pending = pending
        self._pool = _pool(threads)
        self._waiting: deque[tuple[Future[object], Callable[[Future[object]], object]]] = deque()

    def add(
        self,
        write: Callable[[], object],
        settle: Callable[[Future[object]], object] = Future.result,
    ) -> None:
        """Submits a write, which runs in a worker thread.

        `settle` is called in the caller's thread with the finished future, in the order of the
        writes; the default raises what the write raised.
        """
        self._waiting.append((self._pool.submit(write), settle))
        while len(self._waiting) > self.pending or (self._waiting and self._waiting[0][0].done()):
            self._settle()

    def wait(self) -> None:
        """Settles every write that was added."""
        while self._waiting:
            self._settle()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def _settle(self) -> None:
        future, settle = self._waiting.popleft()
        future.exception()  # waits
        settle(future)


def batched(
    elements: Iterable[Element],
    size: int,
    *,
    weight: Callable[[Element], int] = lambda _: 0,
    heaviest: int = 1,
) -> Iterator[list[Element]]:
    """Splits elements into lists of `size`, shorter where weights exceed `heaviest`."""
    batch: list[Element] = []
    held = 0
    for element in elements:
        added = weight(element)
        if batch and held + added > heaviest:
            yield batch
            batch, held = [], 0
        batch.append(element)
        held += added
        if len(batch) == size:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _pool(threads: int, abandoned: threading.Event | None = None) -> ThreadPoolExecutor:
    def begin() -> None:
        torch.set_num_threads(1)
        _worker.abandoned = abandoned

    return ThreadPoolExecutor(threads, initializer=begin)
