"""Runs calls in a process of their own.

Settings that hold for a whole process can so take turns with runs without them, and the peak memory
of a call is that of a process that does nothing else.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import torch

from benchmarks.memory import Peak, peak_of
from benchmarks.timing import Call
from clcae.ops.memory import keep_freed_memory

_call: Call | None = None  # in a worker: what it runs


class Worker:
    """Runs one call in a new process, whenever this object is called; the way there takes 0.3 ms.

    The process ends with this object. Errors of the process are raised here; one that is killed
    gives a RuntimeError.

    Args:
        prepare: makes the call, in the new process; must be picklable.
        memory_kept: whether the process keeps the memory that it frees.
    """

    def __init__(self, prepare: Callable[[], Call], *, memory_kept: bool) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        self._pool.submit(_prepare, prepare, memory_kept, torch.get_num_threads()).result()

    def __call__(self) -> None:
        self._pool.submit(_run).result()

    def peak(self, device: torch.device) -> Peak:
        """Measures the peak memory of the call."""
        return self._pool.submit(_peak, device).result()


def _prepare(prepare: Callable[[], Call], memory_kept: bool, threads: int) -> None:
    global _call
    if memory_kept:
        keep_freed_memory()
    torch.set_num_threads(threads)
    _call = prepare()


def _run() -> None:
    assert _call is not None
    _call()


def _peak(device: torch.device) -> Peak:
    assert _call is not None
    return peak_of(_call, device)
