"""Fixtures of tests that stop a run: the run that was not stopped, and processes to stop."""

import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
from toy_runs import HERE, ROOT, SLOW, configure

from training.run import train

PRELOADED = ["toy_runs", "toy_tasks", "torch._dynamo", "tensorboard.compat.proto.event_pb2"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was not interrupted."""
    runs = tmp_path_factory.mktemp("whole")
    train(configure(runs, SLOW))
    return runs / "toy"


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes processes that need not import everything again."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(ROOT)]))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context
