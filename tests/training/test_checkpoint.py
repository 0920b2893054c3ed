"""Whole files or none: full disks and unreadable checkpoints."""

import errno
import multiprocessing
import os
import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from training.errors import UserError
from training.state.checkpoint import check_state, load_checkpoint, save_checkpoint


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    content = {"step": 3, "best": None, "modules": {"a": {"weight": torch.arange(3.0)}}}
    save_checkpoint(tmp_path / "deep" / "last.pt", content)
    loaded = load_checkpoint(tmp_path / "deep" / "last.pt")
    assert loaded["step"] == 3
    assert torch.equal(loaded["modules"]["a"]["weight"], torch.arange(3.0))


def save_beyond_the_limit(path: Path, results: Any) -> None:
    """In a child: a file may not grow beyond 4 KiB, as on a disk that fills up while writing."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        save_checkpoint(path, {"weight": torch.zeros(100_000)})
    except UserError as error:
        results.put(str(error))


def test_a_disk_that_fills_up_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"weight": torch.ones(2)})
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=save_beyond_the_limit, args=(path, results))
    process.start()
    message = results.get(timeout=30)
    process.join()
    assert str(path) in message
    assert len(message.splitlines()) == 1
    assert torch.equal(load_checkpoint(path)["weight"], torch.ones(2))
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_no_space_while_closing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"step": 1})

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"No space left on device.*the former one is intact"):
        save_checkpoint(path, {"step": 2})
    monkeypatch.undo()
    assert load_checkpoint(path)["step"] == 1
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"\x80\x02cposix\nsystem\n."])
def test_an_unreadable_checkpoint_is_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot read the checkpoint") as caught:
        load_checkpoint(path)
    assert len(str(caught.value).splitlines()) == 1 and "weights_only" not in str(caught.value)


def test_a_checkpoint_of_other_shapes_is_named() -> None:
    given = {"a": torch.zeros(2, 3), "old": torch.zeros(1)}
    expected = {"a": torch.zeros(3, 3), "b": torch.zeros(1)}
    message = r"x does not fit: a is \[2, 3\], expected \[3, 3\]; b is missing; old is not expected"
    with pytest.raises(UserError, match=message):
        check_state(given, expected, what="x")
