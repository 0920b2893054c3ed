"""The benchmark: its commands, what it takes as done, and a small one to its end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from real_runs import ENVIRONMENT, ROOT

from clcae.images import read_image
from training.benchmark import Benchmark, _is_finished, run_benchmark
from training.commands import Command, override
from training.errors import UsageError
from training.run import train

METHODS = sorted(path.stem for path in (ROOT / "configs" / "benchmark").glob("*.yaml"))


def composed(*overrides: str) -> Any:
    with initialize_config_dir(config_dir=str(ROOT / "configs"), version_base="1.3"):
        return compose("train", overrides=["+experiment=portraits_benchmark", *overrides])


def benchmark(*overrides: str, handed: tuple[str, ...] = ()) -> Benchmark:
    config: Any = OmegaConf.to_container(composed(*overrides), resolve=True)
    return Benchmark(config=config, folder=Path("runs/portraits_benchmark"), overrides=handed)


def words(command: Command) -> dict[str, str]:
    pairs = [argument.partition("=") for argument in command.arguments]
    return {key: value for key, _, value in pairs}


def test_every_method_takes_part() -> None:
    assert len(METHODS) == 3
    experiment = OmegaConf.load(ROOT / "configs/experiment/portraits_benchmark.yaml")
    assert sorted(experiment.defaults[0]["/benchmark"]) == METHODS
    names = [entry.name for entry in benchmark().contestants]
    assert names == ["CLCAE", "optimisation", "average"]
    assert [entry.name for entry in benchmark("benchmark=[average]").contestants] == ["average"]


def test_trainings_are_those_of_the_full_ablation() -> None:
    made = benchmark("trainer=debug", handed=("trainer=debug", "trainer.threads=1"))
    commands = made.trainings()
    assert [command.label for command in commands] == [f"CLCAE, seed {s}" for s in (0, 1, 2)]
    for seed, command in enumerate(commands):
        assert command.arguments[:2] == ("trainer=debug", "trainer.threads=1")
        assert words(command)["run"] == f"portraits-full-seed{seed}"
        run = Path(f"runs/portraits-full-seed{seed}-debug")  # of a trial beside the real one
        assert command.run == run / "clcae.safetensors"
        with initialize_config_dir(config_dir=str(ROOT / "configs"), version_base="1.3"):
            ours = compose("train", overrides=list(command.arguments))
        assert f"{ours.run}{ours.trainer.suffix}" == run.name
    (first, *_) = benchmark().trainings()
    with initialize_config_dir(config_dir=str(ROOT / "configs"), version_base="1.3"):
        ours = compose("train", overrides=list(first.arguments))
        ablation = compose("train", overrides=["+ablation=full", "seed=0"])
    name = f"{ablation.run}{ablation.trainer.suffix}"
    assert ours.run == name == "portraits-full-seed0" and ours.trainer.suffix is None
    ablation.run, ablation.trainer.suffix = ours.run, None
    assert ours == ablation


def test_evaluations_compose_and_differ_in_nothing_but_who_is_judged() -> None:
    commands = benchmark("benchmark.num_people=5", "device=cpu", "seed=9").evaluations()
    assert len(commands) == (3 + 1 + 1) * 2
    protocols = []
    for command in commands:
        with initialize_config_dir(config_dir=str(ROOT / "configs"), version_base="1.3"):
            config = compose("evaluate", overrides=list(command.arguments))
        assert (config.data.num_people, config.device) == (5, "cpu")
        assert config.results == "runs/portraits_benchmark/results.jsonl"
        protocols.append(
            {str(key): config.protocol.measures[key] for key in config.protocol.measures}
        )
    assert all(protocol == protocols[0] for protocol in protocols)
    assert words(commands[2])["method.source"] == "runs/portraits-full-seed1/clcae.safetensors"
    assert words(commands[2])["method.seed"] == "1" and words(commands[6])["method.seed"] == "null"
    assert "Projection,steps:50" in words(commands[6])["method.build"]


def test_a_finished_run_is_taken_and_another_one_is_not(tmp_path: Path) -> None:
    (command, *_) = benchmark(f"paths.runs={tmp_path}").trainings()
    assert command.run is not None and not _is_finished(command)
    command.run.parent.mkdir()
    command.run.write_bytes(b"weights")
    assert not _is_finished(command)
    with initialize_config_dir(config_dir=str(ROOT / "configs"), version_base="1.3"):
        config = compose("train", overrides=["+ablation=full", "seed=0", "trainer.threads=1"])
    OmegaConf.save(config, command.run.with_name("config.yaml"), resolve=True)
    assert _is_finished(command)
    config.seed = 1
    OmegaConf.save(config, command.run.with_name("config.yaml"), resolve=True)
    assert not _is_finished(command)  # train.py refuses it, with the keys


def test_values_come_through_the_command_line() -> None:
    given = {
        "method.source": "a folder/it's, {x}=[1].safetensors",
        "method.name": "null",
        "method.seed": 3,
        "outputs": ["W", "W+"],
        "method.build": {"_target_": "a.B", "steps": 50, "lr": 0.1, "z": None, "on": True},
        "results": "12",
    }
    with initialize_config_dir(config_dir=str(ROOT / "configs"), version_base="1.3"):
        config = compose("evaluate", overrides=[override(*pair) for pair in given.items()])
    for key, value in given.items():
        found = OmegaConf.select(config, key)
        assert (OmegaConf.to_container(found) if OmegaConf.is_config(found) else found) == value


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["benchmark.seeds=[]"], "benchmark.seeds is []: nothing to compare"),
        (["benchmark.seeds=3"], "benchmark.seeds is 3: nothing to compare"),
        (["~benchmark.lists.portraits_test", "~benchmark.lists.portraits_plain"], "lists is {}"),
        (["+benchmark.steps=3"], "benchmark has other keys than lists, methods"),
        (["+benchmark.methods.X={source: a, build: {b: c}}"], "X has source and build: expected"),
        (["+benchmark.methods.X={outputs: [W]}"], "X has none: expected one of train, source"),
        (["+benchmark.methods.X={train: [], run: x, file: y}"], "a run with {seed}"),
        (["+benchmark.methods.X={sauce: y}"], "unexpected keyword argument 'sauce'"),
        (["+benchmark.methods.X=3"], "X is 3: expected keys"),
    ],
)
def test_mistakes(overrides: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        benchmark(*overrides)
    assert said in str(caught.value)


def test_torchrun_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="start it without torchrun"):
        run_benchmark(composed(), folder=tmp_path)


SMALL = [
    "+experiment=portraits_benchmark",
    "benchmark=[clcae]",
    "benchmark.seeds=[4]",
    "benchmark.num_people=4",
    "~benchmark.lists.portraits_plain",
    "benchmark.lists.portraits_test=['protocol.edits=null','protocol.time=null']",
    "trainer.limit_batch_size=4",
    "trainer.progress=false",
    "trainer.threads=1",
    "parts.images.num_people=32",
    "parts.validation_images.num_people=16",
    "parts.test_images.num_people=4",
]


def test_a_small_one_is_stopped_and_goes_on_to_its_table(tmp_path: Path) -> None:
    cache = _cache(tmp_path)
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        *SMALL,
        "trainer.limit_steps=12",
        "trainer.log_every=1",
    ]
    command += [f"paths.runs={tmp_path / 'runs'}", f"paths.cache={cache}"]
    logged = tmp_path / "runs" / "portraits-full-seed4" / "metrics.jsonl"
    process = subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 120
    while not logged.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "train.py: stopped by SIGINT; the same command goes on from here"
    assert "[1/4] CLCAE, seed 4: train.py trainer.limit_batch_size=4" in out
    checkpoints = list(logged.parent.glob("checkpoints/*/last.pt"))
    assert checkpoints and not (logged.parent / "clcae.safetensors").exists()
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "portraits_benchmark"
    assert (folder / "table.md").read_text() in done.stdout
    assert "| CLCAE | F | seed 4 |" in done.stdout
    page = (folder / "table.html").read_text()
    assert page.count("<tr") == 4
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert [(row["space"], row["extra"]["seed"]) for row in rows] == [("W", 4), ("W+", 4), ("F", 4)]
    assert {"config.yaml", "environment.json"} <= {path.name for path in folder.iterdir()}
    assert [path.name for path in (folder / "pictures" / "CLCAE" / "F").iterdir()]
    assert read_image(folder / "grid.png").shape[-1] > 4 * 128 and "grid.png" in page


def _cache(tmp_path: Path) -> Path:
    """Pictures are drawn once for all tests of a machine, where a run has drawn them."""
    shared = ROOT / ".cache"
    return shared if shared.is_dir() and os.access(shared, os.W_OK) else tmp_path / "cache"


def test_train_hands_a_benchmark_over(tmp_path: Path) -> None:
    cfg = composed(f"paths.runs={tmp_path}", "benchmark.seeds=[]")
    with pytest.raises(UsageError, match="nothing to compare"):
        train(cfg)
