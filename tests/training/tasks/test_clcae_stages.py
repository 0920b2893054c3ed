"""The real stages through the real command: two gloo processes do what one does."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from real_runs import run_training
from safetensors.torch import load_file
from toy_runs import identical, train_in_child
from two_players import configure, run_in_processes
from two_players import run as small_run

FEW = [
    "trainer.limit_steps=2",
    "data.num_people=32",
    "validation.num_people=16",
    "test.num_people=8",
]


def run(folder: Path, *arguments: str, processes: int = 1) -> Path:
    """Runs both stages; returns the run folder."""
    run_training(folder, *FEW, *arguments, processes=processes)
    return folder / "portraits-debug"


def gradients(folder: Path, stage: str) -> list[torch.Tensor]:
    """What one step left in the momentum: the gradients themselves."""
    path = folder / "checkpoints" / stage / "last.pt"
    (optimizer,) = torch.load(path, weights_only=True)["optimizers"].values()
    return [state["momentum_buffer"] for state in optimizer["state"].values()]


def logged(folder: Path) -> list[dict[str, Any]]:
    """Returns the records of metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_gradients_of_processes_equal_one_with_the_whole_batch(
    processes: int, tmp_path: Path
) -> None:
    optimizers = [
        f"{prefix}stages.{stage}.optim.{setting}"
        for stage in ("aligner", "clcae")
        for prefix, setting in (
            ("", "_target_=torch.optim.SGD"),
            ("", "lr=1.0e-4"),
            ("++", "momentum=0.9"),
        )
    ]
    fixed = [
        "report=null",
        "stages.aligner.task.start=random",  # well conditioned
        "stages.clcae.task.start=random",
        *optimizers,
        "trainer.precision=float32",
        "trainer.limit_steps=1",
        "trainer.limit_batch_size=8",
    ]
    one = run(tmp_path / "one", *fixed)
    two = run(tmp_path / "two", *fixed, processes=processes)
    first, other = (logged(side)[0]["terms"]["aligner/loss"] for side in (one, two))
    assert other == pytest.approx(first, rel=2e-6)  # noise of its own would change it by 2e-5
    for stage in ("aligner", "clcae"):
        alone, together = gradients(one, stage), gradients(two, stage)
        expected, value = (torch.cat([g.flatten() for g in side]) for side in (alone, together))
        assert expected.norm() > 0
        # Float32, with kinks: rounding moves single entries, not the whole.
        assert (value - expected).norm() <= 3e-3 * expected.norm(), stage


def test_two_processes_train_in_bfloat16_too(children: Any, tmp_path: Path) -> None:
    options = ["trainer.limit_batch_size=8", "trainer.precision=bfloat16", "trainer.limit_steps=2"]
    tables = []
    for count in (1, 2):
        runs = tmp_path / str(count)
        run_in_processes(children, configure(runs, None, *options), count)
        tables.append(json.loads((runs / "portraits-debug" / "table.json").read_text()))
    for alone, together in zip(*tables, strict=True):
        assert together["metrics"]["MSE"] == pytest.approx(alone["metrics"]["MSE"], rel=0.1)


def test_a_run_killed_in_both_stages_ends_as_one_that_was_not(
    children: Any, tmp_path: Path
) -> None:
    settings = ["trainer.limit_steps=4", "trainer.save_every=1"]
    expected = small_run(tmp_path / "whole", None, *settings)
    killed = configure(tmp_path / "killed", None, *settings)
    folder = tmp_path / "killed" / "portraits-debug"
    for stage in ("aligner", "clcae", "clcae"):
        last = folder / "checkpoints" / stage / "last.pt"
        before = last.stat().st_mtime_ns if last.exists() else None
        process = children.Process(target=train_in_child, args=(killed,))
        process.start()
        while process.exitcode is None:
            if last.exists() and last.stat().st_mtime_ns != before:
                process.kill()  # kill -9
                process.join()
            time.sleep(0.005)
        assert process.exitcode == -signal.SIGKILL
        assert not (folder / "clcae.safetensors").exists()
    small_run(tmp_path / "killed", None, *settings)
    for name in ("aligner", "clcae"):
        sides = [load_file(side / f"{name}.safetensors") for side in (expected, folder)]
        assert identical(*sides), name
    tables = [
        [{key: value for key, value in row["metrics"].items() if key != "ms"} for row in rows]
        for rows in (json.loads((side / "table.json").read_text()) for side in (expected, folder))
    ]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("attention", ["many_token", "one_token"])
def test_a_whole_run_leaves_table_and_pictures(tmp_path: Path, attention: str) -> None:
    folder = small_run(tmp_path / "runs", None, f"method.attention={attention}")
    rows = json.loads((folder / "table.json").read_text())
    assert [row["space"] for row in rows] == ["W", "W+", "F"]
    for row in rows:
        assert row["num_images"] == 8
        assert set(row["metrics"]) == {"MSE", "PSNR", "SSIM", "perceptual", "identity", "ms"}
        assert set(row["protocol"]) == set(row["metrics"])
    for name in ("grid.png", "table.md", "clcae.safetensors", "aligner.safetensors"):
        assert (folder / name).stat().st_size > 0
    assert "| CLCAE | W+ |" in (folder / "table.md").read_text()
