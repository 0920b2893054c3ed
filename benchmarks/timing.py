"""Times calls that take turns, so that whatever disturbs the machine disturbs all of them.

`torch.utils.benchmark.Timer` is not used: it runs a call at least twice more before each
measurement, and calls that take turns have one measurement a round.
"""

import gc
import math
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence

import torch

Call = Callable[[], object]

MOST_ROUNDS = 9
FEWEST_ROUNDS = 2  # whatever the limit,
PATIENCE = 6  # unless the first round takes this many times as long
SHORTEST = 0.05  # seconds; a shorter call is repeated between two looks at the clock


def interleaved(
    calls: Mapping[str, Call],
    *,
    device: torch.device,
    limit: float,
    most_rounds: int = MOST_ROUNDS,
    warmed: Collection[str] = (),
) -> dict[str, list[float]]:
    """Times calls in turn (a, b, a, b, ...), after one round that does not count.

    Args:
        calls: calls by name.
        device: device to wait for before the clock is read.
        limit: seconds after which no further round begins; two are always made. If the first round
            alone takes six times as long, it counts and stays the only one.
        most_rounds: rounds at most.
        warmed: names of calls that run once, untimed, before each timing.

    Returns:
        Seconds of one call, by name, one for every round.
    """

    def seconds(name: str, repeats: int) -> float:
        if repeats > 1 or name in warmed:  # as if nothing else had run before
            calls[name]()
        wait(device)
        begun = time.perf_counter()
        for _ in range(repeats):
            calls[name]()
        wait(device)
        return (time.perf_counter() - begun) / repeats

    def repeats_of(name: str) -> int:
        # The first call of all was slower than those that follow.
        typical = seconds(name, 1) if first[name] < 10 * SHORTEST else first[name]
        return max(math.ceil(SHORTEST / max(typical, 1e-6)), 1)

    gc.collect()
    first = {name: seconds(name, 1) for name in calls}
    if sum(first.values()) >= PATIENCE * limit:
        return {name: [one] for name, one in first.items()}
    repeats = {name: repeats_of(name) for name in calls}
    rounds: dict[str, list[float]] = {name: [] for name in calls}
    begun = time.perf_counter()
    for done in range(1, most_rounds + 1):
        for name in calls:
            rounds[name].append(seconds(name, repeats[name]))
        spent = time.perf_counter() - begun
        if done >= FEWEST_ROUNDS and spent * (done + 1) / done > limit:
            break
    return rounds


def wait(device: torch.device) -> None:
    """Waits until a GPU has done everything that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def summary(values: Sequence[float]) -> dict[str, float]:
    """Returns median, lowest and highest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}
