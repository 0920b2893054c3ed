"""One thread for each test process: `make test` runs two of them on two cores."""

import os

import pytest
import torch


def pytest_configure() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # child processes inherit it


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # also after a test that changed it
