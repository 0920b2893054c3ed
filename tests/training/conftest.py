"""The run that was not stopped, for tests that stop one."""

from pathlib import Path

import pytest
from toy_runs import SLOW, configure

from training.run import train


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was not interrupted."""
    runs = tmp_path_factory.mktemp("whole")
    train(configure(runs, SLOW))
    return runs / "toy"
