"""The run folder: checkpoints, other configurations, one process at a time."""

import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from toy_runs import ROOT, assert_same_run, configure

from training.errors import UsageError, UserError
from training.run import train
from training.state.checkpoint import load_checkpoint
from training.state.run_state import RunState, differing_keys


def test_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    state = RunState(folder=tmp_path).stage("fit", keep_last=2)
    for step in (5, 10, 15):
        state.save_last({"step": step})
    names = sorted(file.name for file in state.folder.iterdir())
    assert names == ["last.pt", "previous.pt", "step_00000010.pt", "step_00000015.pt"]
    steps = [load_checkpoint(state.folder / name)["step"] for name in names]
    assert steps == [15, 10, 10, 15]
    assert not state.last.samefile(state.previous)


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    state = RunState(folder=tmp_path / "toy")
    state.prepare(OmegaConf.create({"seed": 1, "optim": {"lr": 0.1}}), {})
    state.stage("fit", keep_last=1).save_last({"step": 1})
    with pytest.raises(UsageError, match=r"optim\.lr.*seed.*use run=NAME.*delete"):
        state.prepare(OmegaConf.create({"seed": 2, "optim": {"lr": 0.2}}), {})


def test_of_many_keys_that_differ_some_are_named(tmp_path: Path) -> None:
    state = RunState(folder=tmp_path / "toy")
    state.prepare(OmegaConf.create({"weights": dict.fromkeys("abcdefghijk", 0.0)}), {})
    state.stage("fit", keep_last=1).save_last({"step": 1})
    with pytest.raises(UsageError, match=r"weights\.h and 3 more\): use run=NAME"):
        state.prepare(OmegaConf.create({"weights": dict.fromkeys("abcdefghijk", 1.0)}), {})


def test_a_folder_without_a_checkpoint_starts_anew(tmp_path: Path) -> None:
    state = RunState(folder=tmp_path / "toy")
    state.prepare(OmegaConf.create({"seed": 1}), {})
    (state.folder / "metrics.jsonl").write_text("{}\n")
    state.prepare(OmegaConf.create({"seed": 2}), {})
    assert OmegaConf.load(state.folder / "config.yaml").seed == 2
    assert not (state.folder / "metrics.jsonl").exists()


def test_keys_that_change_nothing_may_differ() -> None:
    old = OmegaConf.create(
        {
            "run": "a",
            "device": "cpu",
            "trainer": {"save_every": 1, "threads": 1},
            "stages": {"fit": {"trainer": {"log_every": 3, "steps": 3}}},
        }
    )
    new = OmegaConf.create(
        {
            "run": "b",
            "device": "cuda",
            "trainer": {"save_every": 2},
            "stages": {"fit": {"trainer": {"log_every": 4, "steps": 4}}},
        }
    )
    assert differing_keys(old, new) == ["stages.fit.trainer.steps"]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    state, other = RunState(folder=tmp_path), RunState(folder=tmp_path)
    with state.locked(), pytest.raises(UserError, match="another process"), other.locked():
        pass
    with other.locked():  # the first has gone
        pass


FORMER = Path(__file__).resolve().parents[1] / "fixtures" / "former" / "runs"
EXPERIMENTS = sorted((FORMER / "experiments").glob("*.yaml"))


def test_every_former_experiment_is_the_same_configuration_today() -> None:
    assert len(EXPERIMENTS) == 7
    for file in EXPERIMENTS:
        chosen = [] if file.stem == "portraits" else [f"+experiment={file.stem}"]
        with initialize_config_dir(config_dir=str(ROOT / "configs"), version_base="1.3"):
            present = compose("train", overrides=chosen)
        former = OmegaConf.load(file)
        assert differing_keys(former, present) == [], file.stem
        former.seed = 5
        assert differing_keys(former, present) == ["seed"]


def test_a_former_part_that_differs_is_named() -> None:
    former = OmegaConf.load(FORMER / "experiments" / "portraits.yaml")
    with initialize_config_dir(config_dir=str(ROOT / "configs"), version_base="1.3"):
        present = compose("train", overrides=["method.layer=16x16/1", "data.num_people=5"])
    assert differing_keys(former, present) == ["data.num_people", "method.layer"]


def test_a_former_run_folder_continues_and_a_finished_one_is_recognised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("stopped", "finished"):
        shutil.copytree(FORMER / name, tmp_path / name / "toy")
        train(configure(tmp_path / name))
    said = capsys.readouterr().out
    assert "fit: continuing after step 21/40" in said and "fit: finished before" in said
    assert_same_run(tmp_path / "stopped" / "toy", FORMER / "finished", tolerance=1e-4)
    assert "parts" not in OmegaConf.load(tmp_path / "finished" / "toy" / "config.yaml")
