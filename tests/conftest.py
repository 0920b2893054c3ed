"""One thread for each test process, of which `make test` runs two; children for tests that kill."""

import multiprocessing
import os
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import Any

import pytest
import torch

HERE = Path(__file__).resolve().parent
# One server forks the children of all tests of a process: what it imports is theirs.
PRELOADED = ["toy_runs", "toy_tasks", "two_players", "evaluations", "torch._dynamo"]
PRELOADED += ["tensorboard.compat.proto.event_pb2"]


def pytest_configure() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # child processes inherit it


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # also after a test that changed it


@pytest.fixture(scope="session")
def children() -> Any:
    """Makes processes that need not import everything again."""
    folders = [HERE / "training", HERE / "fixtures", HERE.parent]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, folders)))
        ensure_running()
    return context
