"""How many threads share an operation, and how they wait for each other, beside other programs.

Torch's operations are shared by OpenMP's threads, which meet at the end of each. By default a
waiting thread of GNU's library (libgomp, in torch's Linux packages) spins some 300,000 times, for
milliseconds. On a quiet machine the others come much sooner; beside another program the one it
waits for may not be running, and the spinning takes its time. OMP_WAIT_POLICY=PASSIVE never spins,
which a quiet machine pays for at every operation. Commands set a bound between the two.

However they wait, all wait for the one whose core another program has. A training therefore takes
as many threads as there are cores for them (`LoadFollower`). It asks the operating system, which
only Linux answers (/proc/stat); elsewhere the number stays as it is.
"""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

BOUND = "GOMP_SPINCOUNT"
POLICY = "OMP_WAIT_POLICY"
SPINS = 10_000  # a fraction of a millisecond: the usual time between two operations

STAT = Path("/proc/stat")
STATES = 8  # of a core's time there: user, nice, system, idle, iowait, irq, softirq, steal
IDLE = slice(3, 5)  # idle, iowait
INTERVAL = 1.0  # seconds between two readings, at least; the counters have hundredths
TOLERANCE = 0.3  # of a core that others may take before a thread is given up
PATIENCE, MOST_PATIENCE = 2, 32  # readings with room in a row, before the number rises
RELAPSE = 60.0  # seconds; a rise that does not last so long doubles the patience
MOST_TOLD = 4  # changes that a run tells of


def bound_spinning() -> None:
    """Sets the bound for this process and those it starts; before torch is imported, once.

    Nothing is changed where the environment says how threads wait.
    """
    if BOUND not in os.environ and POLICY not in os.environ:
        os.environ[BOUND] = str(SPINS)


def waiting() -> str:
    """Says in words how threads of this process wait, if torch was imported after it was set."""
    if BOUND in os.environ:
        return f"threads that wait spin {os.environ[BOUND]} times ({BOUND}), then yield"
    if POLICY in os.environ:
        return f"threads wait as {POLICY}={os.environ[POLICY]} says"
    return "threads that wait spin for milliseconds"


def sharing() -> str:
    """Says in words how threads wait, and whether trainings follow the load of this machine."""
    trainings = "take fewer threads beside busy programs (trainer.threads=N: always N)"
    if read_load() is None:
        trainings = "keep their threads, since nothing says how busy this machine is"
    return f"{waiting()}; trainings {trainings}"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Counters of time at one moment, each from some beginning of its own."""

    seconds: float  # of the clock
    own: float  # seconds of processor time of this process, all its threads together
    idle: float  # ticks that the cores of this process were idle, all together
    ticks: float  # ticks that they had, idle or not
    cores: int  # that this process may use


def read_load() -> Reading | None:
    """Reads the counters; None where the system has none, such as macOS or some sandboxes."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    allowed = os.sched_getaffinity(0)
    idle = ticks = cores = 0
    try:
        with STAT.open() as file:
            for line in file:
                name, *numbers = line.split()
                if not name.startswith("cpu"):
                    break
                if name == "cpu" or int(name[3:]) not in allowed:
                    continue
                states = [int(number) for number in numbers[:STATES]]
                idle, ticks, cores = idle + sum(states[IDLE]), ticks + sum(states), cores + 1
    except (OSError, ValueError):
        return None
    if not ticks or cores != len(allowed):  # of a container whose cores have other numbers
        return None
    own = time.process_time()
    return Reading(seconds=time.monotonic(), own=own, idle=idle, ticks=ticks, cores=cores)


def available_cores(before: Reading, after: Reading) -> float | None:
    """Returns how many cores this process had, or could have had, between two readings.

    These are the idle ones and what it took itself. None where the counters did not go on.
    """
    seconds, ticks = after.seconds - before.seconds, after.ticks - before.ticks
    if seconds <= 0 or ticks <= 0 or after.cores != before.cores:
        return None
    idle = max(after.idle - before.idle, 0) / ticks * after.cores
    return idle + (after.own - before.own) / seconds


class LoadFollower:
    """Keeps the number of threads at that of the cores which other programs leave.

    It falls at once, since a thread without a core holds up all others, and rises after two
    readings in a row that found room; after a rise that was soon taken back, twice as many.

    Args:
        most: threads on a quiet machine, at least 1.
        set_threads: sets the number for the calling thread, as `torch.set_num_threads` does.
        read: reads the counters; where it returns None, nothing is ever changed.
        clock: seconds, of the clock of the readings.
    """

    def __init__(
        self,
        *,
        most: int,
        set_threads: Callable[[int], object],
        read: Callable[[], Reading | None] = read_load,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.most = self.threads = most
        self._set_threads, self._read, self._clock = set_threads, read, clock
        self._former = read() if most > 1 else None
        self._found: list[int] = []  # more threads than now, by the last readings in a row
        self._patience = PATIENCE
        self._risen: float | None = None  # when it last rose, until it falls
        self._told = 0

    @property
    def follows(self) -> bool:
        """Whether the number of threads can change: there are several, and counters to read."""
        return self._former is not None

    def follow(self) -> str | None:
        """Sets the number of threads that the time since the last reading allows.

        To be called between two operations, as often as one likes, by the thread that computes.

        Returns:
            A line that tells of a change; None where there was none, or enough were told of.
        """
        if self._former is None or self._clock() - self._former.seconds < INTERVAL:
            return None
        before, now = self._former, self._read()
        available = None if now is None else available_cores(before, now)
        self._former = now or before
        if available is None:
            return None
        former, self.threads = self.threads, self._wanted(available)
        if self.threads == former:
            return None
        self._set_threads(self.threads)
        return self._line(fallen=self.threads < former)

    def _wanted(self, available: float) -> int:
        fitting = min(max(math.floor(available + TOLERANCE), 1), self.most)
        if fitting > self.threads:
            self._found.append(fitting)
            if len(self._found) < self._patience:
                return self.threads
            fitting = min(self._found)
            self._risen = self._clock()
        elif fitting < self.threads and self._risen is not None:
            relapsed = self._clock() - self._risen < RELAPSE
            self._patience = min(2 * self._patience, MOST_PATIENCE) if relapsed else PATIENCE
            self._risen = None
        self._found.clear()
        return fitting

    def _line(self, *, fallen: bool) -> str | None:
        self._told += 1
        if self._told > MOST_TOLD:
            return None
        why = "other programs are busy" if fallen else "other programs leave room"
        last = "; later changes are not told" if self._told == MOST_TOLD else ""
        return f"threads: {self.threads} of {self.most}, {why}{last}"
