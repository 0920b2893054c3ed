"""A comparison: its commands, what it takes as done, and a small one to its end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from real_runs import ENVIRONMENT, ROOT

from clcae.images import read_image
from scripts.compare import CONFIGS, Comparison, compare, is_finished
from training.commandline import Command, composed, override
from training.errors import UsageError

METHODS = sorted(path.stem for path in (CONFIGS / "contestant").glob("*.yaml"))
OWN = {"contestant", "seeds", "num_people", "precision", "protocol", "lists", "table"}


TABLE = "portraits_comparison"
LISTS = ["portraits_test", "portraits_plain", "portraits_true_edits", "generated"]


def comparison(*overrides: str) -> Comparison:
    config: Any = OmegaConf.to_container(composed(CONFIGS, "compare", overrides), resolve=True)
    folder = Path("runs/compare")
    return Comparison(config=config, folder=folder, table=TABLE, overrides=overrides)


def words(command: Command) -> dict[str, str]:
    pairs = [argument.partition("=") for argument in command.arguments]
    return {key: value for key, _, value in pairs}


def test_every_method_takes_part() -> None:
    ablations = ["e4e_no_delta", "e4e_no_discriminator"]
    variants = ["gate", "no_cycle", "no_e1", "no_e2", "small_edits"]
    of_styleres = [f"styleres_{name}" for name in variants]
    compared = ["average", "clcae", "e4e", "optimization", "psp", "styleres", "w"]
    in_domain = ["in_domain", "in_domain_search", "in_domain_search_zplus", "in_domain_zplus"]
    further = [*in_domain, "e4e_zplus", "optimization_base_code", "optimization_spaces"]
    further += ["pivotal_tuning"]
    assert sorted([*compared, *ablations, *of_styleres, *further]) == METHODS
    defaults = OmegaConf.load(CONFIGS / "compare.yaml").defaults
    assert {*defaults[3].contestant} == {*compared}
    names = [entry.name for entry in comparison().contestants]
    assert names == ["CLCAE", "e4e", "pSp", "W", "StyleRes", "optimisation", "average"]
    names = [
        entry.name for entry in comparison(f"contestant=[w,{','.join(ablations)}]").contestants
    ]
    assert names == ["W", "e4e without delta", "e4e without discriminator"]
    assert [entry.name for entry in comparison("contestant=[average]").contestants] == ["average"]


def test_the_rest_of_the_configuration_is_that_of_a_training() -> None:
    ours, training = composed(CONFIGS, "compare", []), composed(CONFIGS, "train", [])
    assert set(ours) - set(training) == OWN
    assert {key for key in training if ours[key] != training[key]} == {"run"}


def test_trainings_are_those_of_the_full_ablation() -> None:
    given = ["num_people=4", "trainer=debug", "seed=9", "trainer.threads=1"]
    made = comparison("contestant=[clcae]", *given)
    commands = made.trainings()
    assert [command.label for command in commands] == [f"CLCAE, seed {s}" for s in (0, 1, 2)]
    for seed, command in enumerate(commands):
        assert command.arguments[:2] == ["trainer=debug", "trainer.threads=1"]
        assert words(command)["run"] == f"portraits-full-seed{seed}"
        run = Path(f"runs/portraits-full-seed{seed}-debug")  # of a trial beside the real one
        assert command.leaves == run / "clcae.safetensors"
        ours = composed(CONFIGS, "train", command.arguments)
        assert f"{ours.run}{ours.trainer.suffix}" == run.name
    (first, *_) = comparison().trainings()
    ours = composed(CONFIGS, "train", first.arguments)
    ablation = composed(CONFIGS, "train", ["+ablation=full", "seed=0"])
    name = f"{ablation.run}{ablation.trainer.suffix}"
    assert ours.run == name == "portraits-full-seed0" and ours.trainer.suffix is None
    ablation.run, ablation.trainer.suffix = ours.run, None
    assert ours == ablation


def test_a_base_is_trained_once_before_what_stands_on_it() -> None:
    made = comparison("contestant=[styleres,styleres_no_e2]", "seeds=[0,1]", "trainer=debug")
    commands = made.trainings()
    e4e, runs = [Path(f"runs/portraits-e4e-seed{seed}-debug") for seed in (0, 1)], {}
    for command in commands:
        config = composed(CONFIGS, "train", command.arguments)
        runs[config.run] = config
        if "styleres" in config.run:
            assert [*config.stages] == [
                "styleres"
            ] and command.leaves.name == "styleres.safetensors"
            assert config.e4e.source == str(e4e[config.seed] / "e4e.safetensors")
            assert f"portraits-e4e-seed{config.seed}" in runs  # before it
        else:
            assert [*config.stages] == ["e4e"]
    assert len(commands) == len(runs) == 6
    fusions = [config.method.get("fusion") for config in runs.values() if "styleres" in config.run]
    assert fusions == ["sum", "sum", "none", "none"]
    # The very training that the contestant e4e makes.
    (own,) = comparison("contestant=[e4e]", "seeds=[0]", "trainer=debug").trainings()
    assert own.arguments == commands[0].arguments and own.leaves == commands[0].leaves


@pytest.mark.parametrize("name", ["spaces", "styleres", "tradeoff"])
def test_named_comparisons_measure_what_their_tables_show(name: str) -> None:
    given = [f"+comparison={name}", "seeds=[0]"]
    made, config = comparison(*given), composed(CONFIGS, "compare", given)
    table = OmegaConf.load(CONFIGS / "table" / f"portraits_{name}.yaml")
    assert table.results == f"{config.run}/results.jsonl"
    assert not any("comparison" in a for command in made.trainings() for a in command.arguments)
    measured: dict[str, set[str]] = {}
    for command in made.evaluations():
        ours = composed(CONFIGS, "evaluate", command.arguments)
        words_of_images = ours.images or words(command)["data"].replace("_", " ")
        measured.setdefault(words_of_images, set()).update(ours.protocol.measures)
    shown = [(c.protocol.images, c.metrics[0]) for c in table.columns.values()]
    lacking = [
        pair
        for pair in shown
        if not any(pair[1].startswith(known) for known in measured.get(pair[0], ()))
    ]
    assert not lacking


def test_lists_of_pictures_may_share_their_data_or_be_left_out() -> None:
    made = comparison("+comparison=spaces", "contestant=[in_domain_search]", "seeds=[4]")
    test, far = made.evaluations()
    assert words(test)["data"] == "portraits_test" and "data.num_people=32" in test.arguments
    config = composed(CONFIGS, "evaluate", far.arguments)
    assert config.images == "far edits" and config.data.num_people == 24
    assert config.protocol.directions == ["portraits", "portraits/directions_z"]
    (training,) = made.trainings()
    assert config.method.encoder.source == str(training.leaves)
    with pytest.raises(UsageError, match="nothing to compare on"):
        comparison(*(f"lists.{name}=null" for name in LISTS))


def test_evaluations_compose_and_differ_in_nothing_but_who_is_judged() -> None:
    names = "contestant=[clcae,optimization,average]"
    commands = comparison(
        names, "num_people=5", "device=cpu", "seed=9", "precision=bfloat16"
    ).evaluations()
    assert len(commands) == (3 + 1) * 4 + 3  # optimisation of true edits would take hours
    protocols, generated = [], []
    for command in commands:
        config = composed(CONFIGS, "evaluate", command.arguments)
        assert config.precision == "bfloat16"
        if "data=generated" in command.arguments:
            generated.append(list(config.protocol.edits))
            continue
        if "data=portraits_true_edits" in command.arguments:
            assert (config.data.num_people, len(config.protocol.edits)) == (64, 9)
            continue
        assert (config.data.num_people, config.device) == (5, "cpu")
        assert config.results == "runs/compare/results.jsonl"
        protocols.append(
            {str(key): config.protocol.measures[key] for key in config.protocol.measures}
        )
    assert all(protocol == protocols[0] for protocol in protocols)
    assert generated == [["smile", "yaw", "age", "glasses", "beard"]] * 5
    assert words(commands[4])["method.source"] == "runs/portraits-full-seed1/clcae.safetensors"
    assert words(commands[4])["seed"] == "1" and words(commands[12])["seed"] == "null"
    assert words(commands[12])["method"] == "optimization"
    assert words(commands[12])["method.steps"] == "50"


def test_a_contestant_may_have_people_and_spaces_of_its_own() -> None:
    commands = comparison("contestant=[optimization_spaces]", "num_people=300").evaluations()
    assert len(commands) == 2
    for command in commands:
        config = composed(CONFIGS, "evaluate", command.arguments)
        assert (config.data.num_people, config.method.outputs) == (32, None)
        assert config.outputs == ["W", "W+", "Z", "Z+", "F/W+", "F/Z+"]


def test_a_finished_run_is_taken_and_another_one_is_not(tmp_path: Path) -> None:
    (command, *_) = comparison(f"paths.runs={tmp_path}").trainings()
    file = command.leaves
    assert file is not None and not is_finished(command, file)
    file.parent.mkdir()
    file.write_bytes(b"weights")
    assert not is_finished(command, file)
    config = composed(CONFIGS, "train", ["+ablation=full", "seed=0", "trainer.threads=1"])
    OmegaConf.save(config, file.with_name("config.yaml"), resolve=True)
    assert is_finished(command, file)
    config.seed = 1
    OmegaConf.save(config, file.with_name("config.yaml"), resolve=True)
    assert not is_finished(command, file)  # train.py refuses it, with the keys


def test_a_protocol_is_handed_on_to_evaluations_alone() -> None:
    made = comparison("protocol=sfe", "protocol.edits=null", "contestant=[clcae]", "seeds=[0]")
    first, *_ = made.evaluations()
    assert composed(CONFIGS, "evaluate", first.arguments).protocol == made.config["protocol"]
    (training,) = made.trainings()
    assert "protocol" not in str(training)


def test_values_come_through_the_command_line() -> None:
    given = {
        "method.source": "a folder/it's, {x}=[1].safetensors",
        "name": "null",
        "seed": 3,
        "again": True,
        "save": None,
        "results": "12",
    }
    config = composed(CONFIGS, "evaluate", [override(*pair) for pair in given.items()])
    assert {key: OmegaConf.select(config, key) for key in given} == given


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["seeds=[]"], "seeds is []: nothing to compare"),
        (["seeds=3"], "seeds is 3: nothing to compare"),
        (["contestant=[]"], "contestant is None: nothing to compare"),
        (
            [f"~lists.{name}" for name in LISTS],
            "lists is {}: nothing",
        ),
        (["+contestant.X={run: a}"], "X has neither train nor evaluate"),
        (["+contestant.X={train: [], run: x, file: y}"], "a run with {seed}"),
        (["+contestant.X={sauce: y}"], "unexpected keyword argument 'sauce'"),
        (["+contestant.X=3"], "X is 3: "),
        (["contestant=[styleres]", "contestant.StyleRes.base=null"], "={base} and no base"),
    ],
)
def test_mistakes(overrides: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        comparison(*overrides)
    assert said in str(caught.value)


def test_torchrun_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="start it without torchrun"):
        compare(composed(CONFIGS, "compare", []), table=TABLE, overrides=[])


SMALL = [
    "contestant=[w]",
    "seeds=[4]",
    "num_people=4",
    *(f"~lists.{name}" for name in LISTS[1:]),
    "lists.portraits_test=['protocol.edits=null','protocol.time=null']",
    "trainer.limit_batch_size=4",
    "trainer.progress=false",
    "trainer.threads=1",
    "data.num_people=32",
    "validation.num_people=16",
    "test.num_people=4",
]


def test_a_small_one_is_stopped_and_goes_on_to_its_table(tmp_path: Path) -> None:
    cache = _cache(tmp_path)
    command = [
        sys.executable,
        str(ROOT / "scripts" / "compare.py"),
        *SMALL,
        "trainer.limit_steps=8",
        "trainer.log_every=1",
    ]
    command += [f"paths.runs={tmp_path / 'runs'}", f"paths.cache={cache}"]
    logged = tmp_path / "runs" / "portraits-w-seed4" / "metrics.jsonl"
    process = subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 120
    while not logged.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert (
        err.splitlines()[-1] == "compare.py: stopped by SIGINT; the same command goes on from here"
    )
    assert "[1/4] W, seed 4: train.py +experiment=portraits_w trainer.limit_batch_size=4" in out
    checkpoints = list(logged.parent.glob("checkpoints/*/last.pt"))
    assert checkpoints and not (logged.parent / "w.safetensors").exists()
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "compare"
    assert (folder / "table.md").read_text() in done.stdout
    assert "| W | W | seed 4 |" in done.stdout
    page = (folder / "table.html").read_text()
    assert page.count("<tr") == 2
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert [(row["space"], row["extra"]["seed"]) for row in rows] == [("W", 4)]
    assert {"config.yaml", "environment.json"} <= {path.name for path in folder.iterdir()}
    assert [path.name for path in (folder / "pictures" / "W" / "W").iterdir()]
    assert read_image(folder / "grid.png").shape[-1] > 2 * 128 and "grid.png" in page


def _cache(tmp_path: Path) -> Path:
    """Pictures are drawn once for all tests of a machine, where a run has drawn them."""
    shared = ROOT / ".cache"
    return shared if shared.is_dir() and os.access(shared, os.W_OK) else tmp_path / "cache"
