"""A run that was stopped, however, ends as one that was not."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from toy_runs import (
    ENVIRONMENT,
    ROOT,
    SLOW,
    assert_same_run,
    checkpoint,
    command,
    configure,
    identical,
    metrics,
    train_in_child,
)

from training.run import train


def wait_for(path: Path) -> None:
    for _ in range(6000):
        if path.exists():
            return
        time.sleep(0.005)
    raise AssertionError(f"{path} did not appear")


def saved_at(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def test_two_runs_are_identical(whole: Path, tmp_path: Path) -> None:
    train(configure(tmp_path, SLOW))
    assert_same_run(whole, tmp_path / "toy")


def test_another_seed_is_another_run(whole: Path, tmp_path: Path) -> None:
    train(configure(tmp_path, SLOW, "seed=4"))
    assert not identical(checkpoint(whole)["modules"], checkpoint(tmp_path / "toy")["modules"])


def test_sigterm_saves_and_the_same_command_continues(whole: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, *command(tmp_path, SLOW)],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(tmp_path / "toy" / "checkpoints" / "fit" / "last.pt")
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 143
    assert len(errors.splitlines()) == 1
    assert "SIGTERM" in errors
    assert 3 <= checkpoint(tmp_path / "toy")["step"] < 40
    train(configure(tmp_path, SLOW))
    assert_same_run(whole, tmp_path / "toy")


def test_sigint_saves_too(whole: Path, tmp_path: Path, children: Any) -> None:
    process = children.Process(target=train_in_child, args=(configure(tmp_path, SLOW),))
    process.start()
    wait_for(tmp_path / "toy" / "checkpoints" / "fit" / "last.pt")
    os.kill(process.pid, signal.SIGINT)
    process.join(timeout=60)
    assert process.exitcode == 130
    train(configure(tmp_path, SLOW))
    assert_same_run(whole, tmp_path / "toy")


def test_killed_at_any_moment(whole: Path, tmp_path: Path, children: Any) -> None:
    last = tmp_path / "toy" / "checkpoints" / "fit" / "last.pt"
    moments, reached = random.Random(0), []
    for attempt in range(12):
        before = saved_at(last)
        process = children.Process(target=train_in_child, args=(configure(tmp_path, SLOW),))
        process.start()
        if attempt % 3 < 2:  # the others die at any moment of starting or resuming
            while saved_at(last) == before and process.exitcode is None:
                time.sleep(0.002)
        process.join(timeout=moments.uniform(0.0, 0.05))
        if process.exitcode is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        reached.append(checkpoint(tmp_path / "toy")["step"])
    assert len(set(reached)) >= 3  # kills that each found a run further on
    train(configure(tmp_path, SLOW))
    assert_same_run(whole, tmp_path / "toy")
    assert not list((tmp_path / "toy").rglob("*.tmp"))


def test_killed_while_finishing(whole: Path, tmp_path: Path) -> None:
    train(configure(tmp_path, SLOW))
    (tmp_path / "toy" / "checkpoints" / "fit" / "finished.json").unlink()
    (tmp_path / "toy" / "network.pt").unlink()
    train(configure(tmp_path, SLOW))
    assert_same_run(whole, tmp_path / "toy")


def test_the_log_beyond_the_resumed_step_is_dropped(whole: Path, tmp_path: Path) -> None:
    train(configure(tmp_path, SLOW))
    folder = tmp_path / "toy"
    log = folder / "metrics.jsonl"
    extra = '{"stage": "fit", "step": 41}\n{"stage": "other", "step": 99}\n{"stage": "f'
    log.write_text(log.read_text() + extra)
    (folder / "checkpoints" / "fit" / "finished.json").unlink()
    train(configure(tmp_path, SLOW))
    assert metrics(folder) == [*metrics(whole), {"stage": "other", "step": 99}]


def test_two_optimizers_resume_exactly(tmp_path: Path) -> None:
    contrast = [
        "+stages.fit.task={_target_: toy_tasks.Contrast, critic: {_part_: critic}}",
        "+stages.fit.optim.critic={_target_: torch.optim.Adam, lr: 0.01}",
        "trainer.keep_last=100",
    ]
    train(configure(tmp_path, *contrast))
    folder = tmp_path / "toy"
    expected = checkpoint(folder)
    stage = folder / "checkpoints" / "fit"
    (stage / "finished.json").unlink()
    (stage / "step_00000021.pt").replace(stage / "last.pt")
    train(configure(tmp_path, *contrast))
    assert identical(checkpoint(folder), expected)
