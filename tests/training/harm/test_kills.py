"""Kills (kill -9) at any moment, those of writing included: the run ends as one that was not."""

import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
from kills import Countdown
from toy_runs import SLOW, assert_same_run, configure, train_in_child

from training.run import train

COUNTS = [pytest.param(5, id="few"), pytest.param(20, id="many", marks=pytest.mark.slow)]


def die_while_writing(cfg: Any, moment: int) -> None:
    """In a child: kills itself before or after a call that writes, of a number."""
    Countdown(moment=moment)
    train_in_child(cfg)


def assert_nothing_is_left(runs: Path, whole: Path) -> None:
    train(configure(runs, SLOW))
    assert_same_run(whole, runs / "toy")
    hidden = [path.name for path in runs.rglob(".*")]
    assert hidden == [".lock"]
    files = {path.relative_to(runs / "toy") for path in (runs / "toy").rglob("*")}
    expected = {path.relative_to(whole) for path in whole.rglob("*")}
    assert {file for file in files ^ expected if "tfevents" not in file.name} == set()


@pytest.mark.parametrize("count", COUNTS)
def test_killed_at_moments_of_writing(
    count: int, whole: Path, tmp_path: Path, children: Any
) -> None:
    moments, killed = random.Random(count), 0
    for _ in range(count):
        moment = moments.randrange(2, 60)
        cfg = configure(tmp_path, SLOW)
        process = children.Process(target=die_while_writing, args=(cfg, moment))
        process.start()
        process.join(timeout=60)
        killed += process.exitcode == -signal.SIGKILL
    assert killed >= 3
    assert_nothing_is_left(tmp_path, whole)


@pytest.mark.parametrize("count", COUNTS)
def test_killed_at_random_moments(count: int, whole: Path, tmp_path: Path, children: Any) -> None:
    moments, killed = random.Random(count), 0
    for _ in range(count):
        process = children.Process(target=train_in_child, args=(configure(tmp_path, SLOW),))
        process.start()
        process.join(timeout=moments.uniform(0.0, 0.4))
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.join()
    assert killed >= 3
    assert_nothing_is_left(tmp_path, whole)
