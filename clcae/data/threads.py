"""Work in a thread pool, in order and with bounded memory; batches of elements."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")
Element = TypeVar("Element")


def in_order(
    elements: Iterable[Element],
    work: Callable[[Element], Result],
    pool: ThreadPoolExecutor,
    *,
    ahead: int,
) -> "Iterator[tuple[Element, Future[Result]]]":
    """Elements with what becomes of them in the threads of a pool, which ends with them.

    Args:
        elements: In the order of the results.
        work: Called in a thread.
        pool: The threads.
        ahead: Elements at work beyond the one that was asked for; bounds the memory.
    """
    waiting: deque[tuple[Element, Future[Result]]] = deque()
    try:
        for element in elements:
            waiting.append((element, pool.submit(work, element)))
            if len(waiting) > ahead:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        pool.shutdown(cancel_futures=True)


def one_thread_each(count: int) -> ThreadPoolExecutor:
    """Threads whose tensors are worked on by themselves alone, not by as many threads again."""
    return ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))


def batched(elements: Iterable[Element], size: int) -> Iterator[list[Element]]:
    """Lists of `size` elements, the last one shorter."""
    batch = []
    for element in elements:
        batch.append(element)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
