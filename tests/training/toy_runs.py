"""Small runs in a temporary folder: in this process, in a child to be killed, by the command."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor

from training.errors import UserError
from training.run import train

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "training"
SLOW = "+stages.fit.task.delay=0.01"  # seconds a step: leaves time to interrupt it
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}


def configure(runs: Path, *overrides: str) -> DictConfig:
    """Composes the small run, with overrides; its folder is ``runs`` / toy."""
    groups = f"hydra.searchpath=[file://{ROOT / 'configs'}]"
    with initialize_config_dir(config_dir=str(HERE / "configs"), version_base="1.3"):
        return compose("toy", overrides=[groups, f"paths.runs={runs}", *overrides])


def command(runs: Path, *overrides: str) -> list[str]:
    """The arguments of Python for the same."""
    toy = ["--config-dir", str(HERE / "configs"), "--config-name", "toy"]
    return [str(ROOT / "train.py"), *toy, f"paths.runs={runs}", *overrides]


def run_python(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Runs Python to its end in a folder."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def train_in_child(cfg: DictConfig) -> None:
    """What a child process runs: ends with the status of the command."""
    torch.set_num_threads(1)
    try:
        train(cfg)
    except UserError as error:
        sys.exit(error.status)


def checkpoint(folder: Path, name: str = "last", stage: str = "fit") -> dict[str, Any]:
    """A checkpoint of a run."""
    content: dict[str, Any] = torch.load(
        folder / "checkpoints" / stage / f"{name}.pt", map_location="cpu", weights_only=True
    )
    content.pop("digest", None)  # former versions wrote none
    return content


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The log of a run, without the times."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


def identical(one: Any, other: Any) -> bool:
    """Whether nested values are equal, tensors bit for bit."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(identical(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(identical, one, other))
    return bool(one == other)


def assert_same_run(one: Path, other: Path) -> None:
    """Two run folders hold the same checkpoints, log and exported weights."""
    for name in ("last", "best"):
        assert identical(checkpoint(one, name), checkpoint(other, name)), name
    assert metrics(one) == metrics(other)
    exported = [torch.load(folder / "network.pt", weights_only=True) for folder in (one, other)]
    assert identical(*exported)
