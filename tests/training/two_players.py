"""Small runs of the real configurations, in this process and in others, of one player or two."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from toy_runs import ROOT, checkpoint, identical, train_in_child

from training.iteration import Iteration
from training.run import train
from training.task import Task

FEW = ["data.num_people=32", "validation.num_people=8", "test.num_people=8"]
QUIET = ["device=cpu", "trainer.threads=1", "trainer.progress=false", "trainer=debug"]
PLAYERS = ("encoder", "discriminator")


def iteration_of(task: Task, *, stage: str, **settings: Any) -> Iteration:
    """The steps of a task, with plain gradient descent."""
    optimizers = {
        name: torch.optim.SGD(list(group), lr=1e-3) for name, group in task.parameters().items()
    }
    given = {"batch_size": 4, "accumulate": 1, "clip_norm": None, "precision": "float32"}
    return Iteration(
        task=task,
        optimizers=optimizers,
        stage=stage,
        device=torch.device("cpu"),
        seed=0,
        total_steps=100,
        **{**given, **settings},
    )


def configure(runs: Path, experiment: str | None, *overrides: str) -> Any:
    """Composes a real experiment, or what train.py does by itself, made small, into `runs`."""
    paths = [f"paths.runs={runs}", f"paths.cache={runs.parent / 'cache'}"]
    named = [] if experiment is None else [f"+experiment={experiment}"]
    arguments = [*named, *QUIET, *paths, *FEW, *overrides]
    with initialize_config_dir(config_dir=str(ROOT / "configs"), version_base="1.3"):
        return compose("train", overrides=arguments)


def run(runs: Path, experiment: str | None, *overrides: str) -> Path:
    """Trains in this process; returns the run folder."""
    return Path(train(configure(runs, experiment, *overrides))["run"])


def run_in_processes(children: Any, config: Any, count: int) -> None:
    """Trains in `count` processes that find each other as those of torchrun do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    processes = [
        children.Process(target=_train_as_rank, args=(config, rank, count, port))
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=300)
    assert [process.exitcode for process in processes] == [0] * count


def _train_as_rank(config: Any, rank: int, count: int, port: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    train_in_child(config)


def check_resumes_exactly(
    tmp_path: Path, experiment: str, *overrides: str, stage: str, stopped_after: int
) -> dict[str, Any]:
    """Runs a stage, then goes on from one of its checkpoints; returns that of the whole run."""
    steps = [f"trainer.limit_steps={stopped_after + 2}", "trainer.save_every=1"]
    steps += ["trainer.keep_last=9", *overrides]
    folder = run(tmp_path / "runs", experiment, *steps)
    whole = checkpoint(folder, stage=stage)
    assert {*PLAYERS} <= {*whole["modules"]} and {*whole["optimizers"]} == {*PLAYERS}
    kept = folder / "checkpoints" / stage
    (kept / "finished.json").unlink()
    (kept / f"step_{stopped_after:08d}.pt").replace(kept / "last.pt")
    run(tmp_path / "runs", experiment, *steps)
    resumed = checkpoint(folder, stage=stage)
    for key in ("modules", "ema", "optimizers"):
        assert identical(whole[key], resumed[key]), key
    return whole


def check_two_processes_equal_one(
    children: Any, tmp_path: Path, experiment: str, *overrides: str, stage: str, betas: bool
) -> list[dict[str, Any]]:
    """Compares the gradients of two steps, which SGD keeps in its momentum.

    `betas`: whether the optimizers of the experiment have some. Returns both checkpoints.
    """
    settings = ["trainer.precision=float32", "trainer.limit_steps=2", "trainer.limit_batch_size=8"]
    for name in PLAYERS:
        optim = f"stages.{stage}.optim.{name}"
        settings += [f"{optim}._target_=torch.optim.SGD", f"{optim}.lr=1.0e-4"]
        settings += [f"++{optim}.momentum=0.9", *([f"~{optim}.betas"] if betas else [])]
    found = []
    for count in (1, 2):
        runs = tmp_path / str(count) / "runs"
        config = configure(runs, experiment, "report=null", *settings, *overrides)
        run_in_processes(children, config, count)
        (folder,) = runs.iterdir()
        found.append(checkpoint(folder, stage=stage))
    for name in PLAYERS:
        expected, value = (_momentum(side["optimizers"][name]["state"].values()) for side in found)
        assert expected.norm() > 0
        # Float32, with kinks: rounding moves single entries, not the whole.
        assert (value - expected).norm() <= 1e-2 * expected.norm(), name
    return found


def _momentum(states: Sequence[Any] | Any) -> torch.Tensor:
    return torch.cat([state["momentum_buffer"].flatten() for state in states])
