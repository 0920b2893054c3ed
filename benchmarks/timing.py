"""Seconds of calls that take turns, so that whatever disturbs the machine disturbs all of them."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

Call = Callable[[], object]

MOST_ROUNDS = 9
FEWEST_ROUNDS = 2  # whatever the limit,
PATIENCE = 6  # unless the first round takes this many times as long
SHORTEST = 0.05  # seconds; what takes less is called several times between two looks at the clock


def interleaved(
    calls: Mapping[str, Call],
    *,
    device: torch.device,
    limit: float,
    most_rounds: int = MOST_ROUNDS,
) -> dict[str, list[float]]:
    """Times calls in turn (a, b, a, b, ...), after one round that does not count.

    Args:
        calls: What is timed, by name.
        device: What is waited for before the clock is read.
        limit: Seconds after which no further round is begun, but two are always made. Where the
            first round alone takes six times as long, it counts and stays the only one.
        most_rounds: Rounds at most.

    Returns:
        Seconds of one call, by name, one for every round.
    """
    gc.collect()
    first = {name: _seconds(call, device, 1) for name, call in calls.items()}
    if sum(first.values()) >= PATIENCE * limit:
        return {name: [seconds] for name, seconds in first.items()}
    repeats = {name: _repeats(call, device, first[name]) for name, call in calls.items()}
    rounds: dict[str, list[float]] = {name: [] for name in calls}
    begun = time.perf_counter()
    for done in range(1, most_rounds + 1):
        for name, call in calls.items():
            rounds[name].append(_seconds(call, device, repeats[name]))
        spent = time.perf_counter() - begun
        if done >= FEWEST_ROUNDS and spent * (done + 1) / done > limit:
            break
    return rounds


def _repeats(call: Call, device: torch.device, first: float) -> int:
    """How often a call fills the shortest time; what came first was slower than what follows."""
    if first < 10 * SHORTEST:
        first = _seconds(call, device, 1)
    return max(math.ceil(SHORTEST / max(first, 1e-6)), 1)


def _seconds(call: Call, device: torch.device, repeats: int) -> float:
    """Of one call. Short ones, and those that ask for it, find things as if nothing else ran."""
    if repeats > 1 or getattr(call, "warmed", False):
        call()
    wait(device)
    begun = time.perf_counter()
    for _ in range(repeats):
        call()
    wait(device)
    return (time.perf_counter() - begun) / repeats


def wait(device: torch.device) -> None:
    """Until everything that was asked of a GPU is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}
