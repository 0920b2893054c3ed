"""Disks that are full or cannot be written to, and folders that somebody else uses: one line."""

import errno
import json
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from toy_runs import ENVIRONMENT, ROOT, command, configure

from clcae.files import leftovers
from clcae.weight_file import write_weights
from training.errors import UserError, explain
from training.run import train
from training.state.run_state import RunState


def explained(error: BaseException) -> str:
    said = explain(error, name="train.py", configs=Path(), primary="", arguments=[])
    assert said is not None, repr(error)
    assert len(said[0].splitlines()) <= 1
    return said[0]


def train_within(limit: int, runs: Path, results: Any) -> None:
    """In a child: a file may not grow beyond a limit, as on a disk that fills up."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        train(configure(runs, "trainer.progress=false"))
    except BaseException as error:
        results.put(explained(error))
    else:
        results.put("nothing")


# As the files of a run are written one after the other: which of them is too large.
@pytest.mark.parametrize(
    ("limit", "file"),
    [
        (100, "config.yaml"),
        (1700, "environment.json|metrics.jsonl|tfevents|last.pt"),
        (3000, "last.pt|tfevents|best.pt|metrics.jsonl"),
    ],
)
def test_a_disk_that_fills_up(limit: int, file: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=train_within, args=(limit, tmp_path, results))
    process.start()
    said = results.get(timeout=60)
    process.join()
    assert said.startswith("cannot write ") and "File too large" in said
    assert any(name in said for name in file.split("|")), said
    assert leftovers(tmp_path) == []


class Board:
    """An event file on a full disk."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def write(self, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_beneath_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensorboard.summary.writer.record_writer.RecordWriter", Board)
    with pytest.raises(OSError, match="No space left") as caught:
        train(configure(tmp_path))
    assert "tfevents" in explained(caught.value)


def write_beyond(limit: int, path: Path, results: Any) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        write_weights(path, dict(nn.Linear(100, 100).state_dict()), {})
    except Exception as error:
        results.put(explained(error))


def test_a_disk_that_fills_up_while_weights_are_exported(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    path = tmp_path / "clcae.safetensors"
    process = context.Process(target=write_beyond, args=(4096, path, results))
    process.start()
    assert results.get(timeout=60) == f"cannot write {path}: File too large"
    process.join()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EIO, errno.ENOTDIR])
def test_files_that_cannot_be_written(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = os.strerror(number)

    def refused(source: object, target: object, **_: Any) -> None:
        raise OSError(number, reason, str(source), None, str(target))

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(OSError, match=reason) as caught:
        train(configure(tmp_path))
    assert explained(caught.value) == f"{tmp_path / 'toy/config.yaml'}: {reason}"


def test_what_others_raise_is_one_line_too() -> None:
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:537] Connection closed by peer [127.0.0.1]")
    assert explained(lost) == "another process of this run has ended: it says why"
    assert explained(BrokenPipeError(errno.EPIPE, "Broken pipe")) == ""
    wrong = UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "surrogates not allowed")
    assert explained(wrong).startswith("cannot write 'a\\udcff'")


def test_the_lock_says_who_holds_it(tmp_path: Path) -> None:
    state, other = RunState(folder=tmp_path), RunState(folder=tmp_path)
    holder = rf"another process \(pid {os.getpid()} on '{socket.gethostname()}'\) is training in"
    with state.locked(), pytest.raises(UserError, match=holder), other.locked():
        pass
    assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', "\udcff"])
def test_a_lock_that_says_nothing(text: str, tmp_path: Path) -> None:
    state, other = RunState(folder=tmp_path), RunState(folder=tmp_path)
    with state.locked():
        (tmp_path / ".lock").write_text(text, errors="surrogateescape")
        with pytest.raises(UserError, match="another process is training"), other.locked():
            pass


def test_a_deleted_lock_lets_nobody_in(tmp_path: Path) -> None:
    state, other = RunState(folder=tmp_path), RunState(folder=tmp_path)
    with state.locked():
        (tmp_path / ".lock").unlink()
        with pytest.raises(UserError, match="another process is training"), other.locked():
            pass
    with other.locked():
        pass


def test_leftovers_are_ours_alone(tmp_path: Path) -> None:
    ours = [".last.pt.0123abcd.partial", "checkpoints/fit/.best.pt.00000000.partial", ".tmpAb1Cd2"]
    theirs = ["notes.tmp", "x.partial", ".x.partial", ".tmp", ".tmpfile", ".a.0123abcg.partial"]
    state = RunState(folder=tmp_path)
    for name in [*ours, *theirs]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    state.prepare(configure(tmp_path), {})
    assert [name for name in ours if (tmp_path / name).exists()] == []
    assert [name for name in theirs if not (tmp_path / name).exists()] == []


def test_the_folder_is_free_after_a_launcher_was_killed(tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.Popen(
        [sys.executable, *launcher, *command(tmp_path, "+stages.fit.task.delay=0.2")],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    last = tmp_path / "toy/checkpoints/fit/last.pt"
    ended = time.monotonic() + 60
    while not last.exists() and time.monotonic() < ended:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    ended = time.monotonic() + 20
    while True:
        try:
            with RunState(folder=tmp_path / "toy").locked():
                break
        except UserError:
            assert time.monotonic() < ended
            time.sleep(0.2)
    assert 3 <= torch.load(last, weights_only=True)["step"] < 40
