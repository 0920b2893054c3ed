"""Small runs in a temporary folder: in this process, in a child to be killed, by the command."""

import json
import math
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


def identical(one: Any, other: Any, tolerance: float = 0.0) -> bool:
    """Whether nested values are equal: bit for bit, or numbers within a relative tolerance."""
    if isinstance(one, Tensor):
        if tolerance and one.is_floating_point() and one.shape == other.shape:
            return torch.allclose(one, other, rtol=tolerance, atol=tolerance * 1e-2)
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return False
        return all(identical(one[key], other[key], tolerance) for key in one)
    if isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return False
        return all(identical(a, b, tolerance) for a, b in zip(one, other, strict=True))
    if tolerance and isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=tolerance)
    return bool(one == other)


def assert_same_run(one: Path, other: Path, tolerance: float = 0.0) -> None:
    """Two run folders hold the same checkpoints, log and exported weights.

    Without a tolerance both are of one kind of processor: others round otherwise.
    """
    for name in ("last", "best"):
        assert identical(checkpoint(one, name), checkpoint(other, name), tolerance), name
    assert identical(metrics(one), metrics(other), tolerance)
    exported = [torch.load(folder / "network.pt", weights_only=True) for folder in (one, other)]
    assert identical(*exported, tolerance)
