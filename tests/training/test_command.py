"""The command itself: what it says and how it ends."""

from pathlib import Path

import pytest
from toy_runs import ROOT, command, run_python

from training.errors import choices_of, explain
from training.optim import Ranger

CONFIGS = ROOT / "configs"


def assert_one_line(arguments: list[str], *words: str, status: int, folder: Path = ROOT) -> None:
    done = run_python(*arguments, folder=folder)
    assert done.returncode == status, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


def test_an_unknown_experiment() -> None:
    words = ["no experiment 'nonsense'", *choices_of(CONFIGS, "experiment")]
    assert_one_line([str(ROOT / "train.py"), "+experiment=nonsense"], *words, status=2)


def test_a_misspelt_key() -> None:
    words = ["trainer.stepz", "did you mean", "trainer.steps"]
    assert_one_line([str(ROOT / "train.py"), "trainer.stepz=3"], *words, status=2)


def test_a_failure_during_training_and_nothing_is_littered(tmp_path: Path) -> None:
    poisoned = command(Path("runs"), "+stages.fit.task.poison=2", "trainer.progress=false")
    assert_one_line(poisoned, "step 2", "'fit' is nan", status=1, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["toy"]


def test_help_teaches() -> None:
    done = run_python(str(ROOT / "train.py"), "--help")
    assert done.returncode == 0
    for word in ["+experiment=", "torchrun", "trainer: debug", "runs/NAME", "optim"]:
        assert word in done.stdout


def explained_here(error: Exception) -> tuple[str, int] | None:
    return explain(error, name="train.py", configs=CONFIGS, primary="train", arguments=[])


def raised_here() -> None:
    raise ValueError("of somebody else")


def test_only_our_own_value_errors_are_explained() -> None:
    with pytest.raises(ValueError) as ours:
        Ranger([], period=0)
    with pytest.raises(ValueError) as theirs:
        raised_here()
    explained = explained_here(ours.value)
    assert explained is not None
    assert explained[1] == 1
    assert explained_here(theirs.value) is None


def test_a_missing_file_is_explained() -> None:
    error = FileNotFoundError(2, "No such file or directory", "faces.pt")
    assert explained_here(error) == (str(error), 1)
    assert "faces.pt" in str(error)
