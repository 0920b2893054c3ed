"""How threads wait, and how many there are: what the user sets, and what the load does."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clcae import openmp
from clcae.openmp import LoadFollower, Reading, available_cores, read_load


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (openmp.BOUND, openmp.POLICY):
        monkeypatch.delenv(name, raising=False)


def test_commands_bound_the_spinning_before_torch_is_there() -> None:
    code = (
        "import os, sys; from clcae.command import begin; begin(); "
        "print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == [str(openmp.SPINS), "False"]


@pytest.mark.parametrize("name", [openmp.BOUND, openmp.POLICY])
def test_what_the_user_says_goes_before(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert openmp.waiting() == "threads that wait spin for milliseconds"
    monkeypatch.setenv(name, "7")
    openmp.bound_spinning()
    assert {key for key in (openmp.BOUND, openmp.POLICY) if key in os.environ} == {name}
    assert name in openmp.waiting() and "7" in openmp.waiting()


class Machine:
    """A machine whose clock moves when it is told to; a process of it follows the load."""

    def __init__(self, cores: int = 2) -> None:
        self.cores = cores
        self.now = self.own = self.idle = 0.0
        self.looked = 0
        self.set: list[int] = []
        self.follower = LoadFollower(
            most=cores, set_threads=self.set.append, read=self.read, clock=lambda: self.now
        )

    def read(self) -> Reading | None:
        self.looked += 1
        ticks = 100 * self.now * self.cores
        return Reading(
            seconds=self.now, own=self.own, idle=100 * self.idle, ticks=ticks, cores=self.cores
        )

    def after(self, *, busy: float, seconds: float = 1.0) -> str | None:
        """Lets time pass beside programs that keep so many cores busy; follows the load then."""
        own = min(self.follower.threads, self.cores - busy)
        self.now += seconds
        self.own += seconds * own
        self.idle += seconds * (self.cores - busy - own)
        return self.follower.follow()

    def threads(self, *busy: float) -> list[int]:
        """The number of threads after each of some seconds."""
        numbers = []
        for each in busy:
            self.after(busy=each)
            numbers.append(self.follower.threads)
        return numbers


def test_available_are_idle_cores_and_those_of_the_process() -> None:
    before = Reading(seconds=5.0, own=7.0, idle=1000, ticks=4000, cores=4)
    after = Reading(seconds=7.0, own=10.0, idle=1300, ticks=4800, cores=4)
    assert available_cores(before, after) == pytest.approx(3 / 2 + 4 * 3 / 8)
    assert available_cores(before, before) is None


def test_beside_a_program_one_thread_less_until_it_is_gone() -> None:
    machine = Machine()
    assert machine.after(busy=0.0) is None
    assert machine.after(busy=1.0) == "threads: 1 of 2, other programs are busy"
    assert machine.after(busy=1.0) is None
    assert machine.after(busy=0.0) is None  # it may come back
    assert machine.after(busy=0.0) == "threads: 2 of 2, other programs leave room"
    assert machine.set == [1, 2]


@pytest.mark.parametrize(
    ("cores", "busy", "threads"),
    [(2, 0.25, 2), (2, 0.35, 1), (2, 2.0, 1), (16, 1.0, 15), (16, 1.25, 15), (16, 3.5, 12)],
)
def test_a_thread_for_every_core_that_is_nearly_free(cores: int, busy: float, threads: int) -> None:
    assert Machine(cores).threads(busy)[0] == threads


def test_as_many_come_back_as_all_readings_had_room_for() -> None:
    machine = Machine(8)
    assert machine.threads(6, 0, 2, 0, 0) == [2, 2, 6, 6, 8]


def test_threads_that_wait_in_vain_count_as_the_process_itself() -> None:
    before = Reading(seconds=0.0, own=0.0, idle=0, ticks=0, cores=2)
    spinning = Reading(seconds=1.0, own=1.0, idle=0, ticks=200, cores=2)
    readings = [before, spinning]
    follower = LoadFollower(
        most=2, set_threads=lambda number: None, read=lambda: readings.pop(0), clock=lambda: 1.0
    )
    follower.follow()
    assert follower.threads == 1


def test_the_load_is_read_once_a_second() -> None:
    machine = Machine()
    for _ in range(10):
        machine.after(busy=1.0, seconds=0.25)
    assert machine.looked == 1 + 2 and machine.set == [1]


def test_a_program_that_comes_and_goes_is_trusted_less_and_less() -> None:
    machine = Machine()
    waited = []
    for _ in range(6):
        assert machine.threads(1.0) == [1]
        quiet = 1
        while machine.threads(0.0) == [1]:
            quiet += 1
        waited.append(quiet)
    assert waited == [2, 4, 8, 16, 32, 32]
    machine.after(busy=0.0, seconds=openmp.RELAPSE)  # a rise that lasted
    assert machine.threads(1.0, 0.0, 0.0) == [1, 1, 2]


def test_the_first_changes_are_told() -> None:
    machine = Machine()
    lines = [machine.after(busy=float(second % 40 < 2)) for second in range(400)]
    told = [line for line in lines if line]
    assert len(told) == openmp.MOST_TOLD < len(machine.set)
    assert [line.endswith("; later changes are not told") for line in told] == [False] * 3 + [True]


@pytest.mark.parametrize("most", [1, 2])
def test_without_counters_the_number_stays(most: int) -> None:
    readings: list[Reading | None] = [None, None]
    follower = LoadFollower(
        most=most, set_threads=pytest.fail, read=lambda: readings.pop(), clock=lambda: 9.0
    )
    assert follower.follow() is None and follower.threads == most and not follower.follows
    standing = Reading(seconds=0.0, own=0.0, idle=5, ticks=9, cores=2)
    follower = LoadFollower(
        most=most, set_threads=pytest.fail, read=lambda: standing, clock=lambda: 9.0
    )
    assert follower.follow() is None and follower.threads == most
    assert follower.follows == (most > 1)


COUNTERS = """cpu  90 9 90 900 90 9 9 9 0 0
cpu0 1 2 3 40 5 6 7 8 900 900
cpu1 1 1 1 10 1 1 1 1 0 0
cpu3 10 0 0 50 0 0 0 0 0 0
intr 12 0 0
"""


@pytest.mark.parametrize(
    ("allowed", "idle", "ticks"), [({0}, 45, 72), ({0, 1, 3}, 106, 149), ({0, 2}, None, None)]
)
def test_counters_of_the_cores_that_the_process_may_use(
    allowed: set[int],
    idle: int | None,
    ticks: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(openmp, "STAT", tmp_path / "stat")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: allowed, raising=False)
    assert read_load() is None
    (tmp_path / "stat").write_text(COUNTERS)
    reading = read_load()
    if idle is None:
        assert reading is None and "keep their threads" in openmp.sharing()
        return
    assert reading is not None and "take fewer threads" in openmp.sharing()
    assert (reading.idle, reading.ticks, reading.cores) == (idle, ticks, len(allowed))


@pytest.mark.skipif(read_load() is None, reason="nothing says how busy this machine is")
def test_real_programs_that_keep_two_cores_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openmp, "INTERVAL", 0.0)
    usual = os.sched_getaffinity(0)
    if len(usual) < 2:
        pytest.skip("there is one core")
    programs = []
    try:
        os.sched_setaffinity(0, sorted(usual)[:2])  # which the programs inherit
        loop = ["sh", "-c", "while :; do :; done"]
        programs = [subprocess.Popen(loop) for _ in range(2)]
        numbers: list[int] = []
        follower = LoadFollower(most=2, set_threads=numbers.append)
        time.sleep(0.3)
        assert follower.follow() == "threads: 1 of 2, other programs are busy"
        assert numbers == [1]
    finally:
        os.sched_setaffinity(0, usual)
        for program in programs:
            program.kill()
            program.wait()
