"""The run folder: checkpoints, other configurations, one process at a time."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from training.checkpoint import load_checkpoint
from training.errors import UsageError, UserError
from training.run_state import RunState, differing_keys


def test_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    state = RunState(folder=tmp_path).stage("fit", keep_last=2)
    for step in (5, 10, 15):
        state.save_last({"step": step})
    names = sorted(file.name for file in state.folder.iterdir())
    assert names == ["last.pt", "step_00000010.pt", "step_00000015.pt"]
    steps = [load_checkpoint(state.folder / name)["step"] for name in names]
    assert steps == [15, 10, 15]


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    state = RunState(folder=tmp_path / "toy")
    state.prepare(OmegaConf.create({"seed": 1, "optim": {"lr": 0.1}}), {})
    state.stage("fit").save_last({"step": 1})
    with pytest.raises(UsageError, match=r"optim\.lr.*seed.*use run=NAME.*delete"):
        state.prepare(OmegaConf.create({"seed": 2, "optim": {"lr": 0.2}}), {})


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
