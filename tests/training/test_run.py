"""Whole runs in this process: folders, stages, exports and reports."""

import itertools
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from toy_runs import checkpoint, configure, identical, metrics

from clcae.openmp import LoadFollower, Reading
from training.errors import NonFiniteError, UsageError, UserError
from training.run import train
from training.trainer import Trainer

NETWORK = "network: {_part_: network}"
REPORT = f"report={{_target_: toy_tasks.Report, {NETWORK}}}"
SECOND = f"+stages.second.task={{_target_: toy_tasks.Regression, {NETWORK}, average: false}}"
SECOND_STEPS = "+stages.second.trainer.steps=2"


def test_a_run_folder_holds_what_it_should(tmp_path: Path) -> None:
    result = train(configure(tmp_path))
    folder = tmp_path / "toy"
    assert result["run"] == str(folder)
    assert set(result["stages"]["fit"]) == {"error"}
    assert checkpoint(folder)["step"] == 40
    facts = json.loads((folder / "environment.json").read_text())
    assert {"commit", "torch", "device", "threads"} <= set(facts)
    logged = [record["step"] for record in metrics(folder) if "terms" in record]
    assert logged == [7, 14, 21, 28, 35, 40]
    terms = {"network/loss", "network/fit", "network/size", "network/gradient_norm"}
    assert set(metrics(folder)[0]["terms"]) == terms
    validated = [record["step"] for record in metrics(folder) if "validation" in record]
    assert validated == [11, 22, 33, 40]
    pictures = sorted(path.name for path in (folder / "samples" / "fit").iterdir())
    assert pictures == ["000020.png", "000040.png"]
    with Image.open(folder / "samples" / "fit" / pictures[0]) as picture:
        assert (picture.size, picture.mode) == ((8, 8), "RGB")
    assert list((folder / "tensorboard" / "fit").iterdir())


@pytest.mark.parametrize("threads", ["null", "2"])
def test_a_run_without_a_number_of_threads_follows_the_load(
    threads: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seconds = itertools.count(step=10.0)
    used: list[int] = []

    def busy() -> Reading:  # another program has one of two cores
        now = next(seconds)
        return Reading(seconds=now, own=now, idle=0, ticks=200 * now, cores=2)

    def step(self: Trainer) -> dict[str, float]:
        used.append(torch.get_num_threads())
        return iterate(self)

    iterate = Trainer._iterate
    monkeypatch.setattr(Trainer, "_iterate", step)
    follower = partial(LoadFollower, read=busy, clock=lambda: next(seconds))
    monkeypatch.setattr("training.run.LoadFollower", follower)
    torch.set_num_threads(2)
    steps = "stages.fit.trainer.steps=3"
    train(configure(tmp_path, f"trainer.threads={threads}", steps))
    followed = threads == "null"
    assert used == ([2, 1, 1] if followed else [2, 2, 2])
    assert torch.get_num_threads() == 2
    assert capsys.readouterr().out.count("threads: 1 of 2") == followed
    facts = json.loads((tmp_path / "toy" / "environment.json").read_text())
    assert (facts["threads"], facts["threads_follow_load"]) == (2, followed)


def test_a_finished_stage_is_skipped_and_its_weights_serve_the_next(tmp_path: Path) -> None:
    train(configure(tmp_path))
    folder = tmp_path / "toy"
    averaged = checkpoint(folder)["ema"]["network"]
    before = (folder / "checkpoints" / "fit" / "last.pt").stat().st_mtime_ns
    (folder / "config.yaml").unlink()  # the second stage is new to the folder
    still = "++stages.second.optim.network.lr=0.0"
    result = train(configure(tmp_path, SECOND, SECOND_STEPS, still))
    assert (folder / "checkpoints" / "fit" / "last.pt").stat().st_mtime_ns == before
    assert set(result["stages"]) == {"fit", "second"}
    second = checkpoint(folder, stage="second")["modules"]["network"]
    weights = [key for key in second if "weight" in key]
    assert all(torch.equal(second[key], averaged[key]) for key in weights)


def test_stages_share_the_part_whether_trained_or_loaded(tmp_path: Path) -> None:
    train(configure(tmp_path, SECOND, SECOND_STEPS))
    at_once = checkpoint(tmp_path / "toy", stage="second")
    stage = tmp_path / "toy" / "checkpoints" / "second"
    for file in stage.iterdir():
        file.unlink()
    train(configure(tmp_path, SECOND, SECOND_STEPS))
    assert identical(checkpoint(tmp_path / "toy", stage="second"), at_once)


def test_the_export_is_averaged_and_the_checkpoint_holds_both(tmp_path: Path) -> None:
    train(configure(tmp_path))
    content = checkpoint(tmp_path / "toy")
    exported = torch.load(tmp_path / "toy" / "network.pt", weights_only=True)
    assert identical(exported, content["ema"]["network"])
    assert not identical(content["modules"]["network"], content["ema"]["network"])


def test_finish_with_the_best(tmp_path: Path) -> None:
    worse = "+stages.fit.task.drift=1.0"  # so the first validation is the best
    train(configure(tmp_path, worse, "trainer.finish_with=best", "optim.lr=0.1"))
    folder = tmp_path / "toy"
    errors = [record["validation"]["error"] for record in metrics(folder) if "validation" in record]
    assert checkpoint(folder, "best")["best"] == errors[0] < min(errors[1:])
    exported = torch.load(folder / "network.pt", weights_only=True)
    assert identical(exported, checkpoint(folder, "best")["ema"]["network"])


def test_debug_is_short_and_has_a_folder_of_its_own(tmp_path: Path) -> None:
    result = train(configure(tmp_path, "trainer=debug", SECOND, SECOND_STEPS))
    assert result["run"] == str(tmp_path / "toy-debug")
    steps = [checkpoint(tmp_path / "toy-debug", stage=name)["step"] for name in ("fit", "second")]
    assert steps == [3, 2]
    assert any("validation" in record for record in metrics(tmp_path / "toy-debug"))


def test_the_report_receives_parts_and_is_returned(tmp_path: Path) -> None:
    result = train(configure(tmp_path, REPORT))
    norm = json.loads((tmp_path / "toy" / "norm.json").read_text())
    assert result["report"]["norm"] == norm > 0


def test_the_loss_goes_down(tmp_path: Path) -> None:
    train(configure(tmp_path, "stages.fit.trainer.steps=120", "optim.lr=0.3"))
    errors = [
        record["validation"]["error"]
        for record in metrics(tmp_path / "toy")
        if "validation" in record
    ]
    assert errors[-1] < 0.5 * errors[0]


def test_bfloat16_runs_whatever_the_machine(tmp_path: Path) -> None:
    train(configure(tmp_path, "trainer.precision=bfloat16", "stages.fit.trainer.steps=3"))
    weights = checkpoint(tmp_path / "toy")["modules"]["network"]
    assert all(value.dtype != torch.bfloat16 for value in weights.values())


def test_a_nan_stops_the_run_and_the_last_checkpoint_is_good(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"stage fit, step 20, phase network: .*'fit'"):
        train(configure(tmp_path, "+stages.fit.task.poison=20"))
    content = checkpoint(tmp_path / "toy")
    assert content["step"] == 18
    assert all(value.isfinite().all() for value in content["modules"]["network"].values())


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    train(configure(tmp_path))
    folder = tmp_path / "toy"
    (folder / "config.yaml").unlink()
    with pytest.raises(UserError, match=r"layers\.0\.weight is \[8, 4\], expected \[6, 4\]"):
        train(configure(tmp_path, "+network.width=6"))


def test_a_folder_of_another_configuration_is_left_alone(tmp_path: Path) -> None:
    train(configure(tmp_path))
    before = checkpoint(tmp_path / "toy")
    with pytest.raises(UsageError, match=r"differs in seed.*run=NAME.*delete") as caught:
        train(configure(tmp_path, "seed=9", "trainer.log_every=5"))
    assert caught.value.status == 2
    assert identical(checkpoint(tmp_path / "toy"), before)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["~stages.fit"], "has no stages"),
        (["~stages.fit.task"], r"stages\.fit has no task"),
        (["+stages.fit.optimizer=3"], r"stages\.fit has no key optimizer; there are optim"),
        (["stages.fit.task={_target_: toy_tasks.Report}"], "is a Report, expected a .*Task"),
        (["+stages.fit.optim={other: 3}"], "names other, but the task's optimizers are network"),
        (["stages.fit.trainer.batch_size=15", "trainer.accumulate=2"], "expected a multiple of 2"),
        (["run=a/b"], "run is 'a/b'"),
        (["device=gpu"], "device is 'gpu', expected auto, cpu"),
        (["seed=???"], "seed"),
    ],
)
def test_mistakes_are_one_line(overrides: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=message) as caught:
        train(configure(tmp_path, *overrides))
    known: tuple[Any, ...] = (UsageError,)
    assert isinstance(caught.value, known) or "seed" in message
    assert not (tmp_path / "toy" / "checkpoints").exists()


def test_a_mistake_in_the_last_stage_is_found_before_the_first(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"stages\.second\.trainer\.steps is not set"):
        train(configure(tmp_path, SECOND))
    assert not (tmp_path / "toy").exists()


def test_unreadable_pictures_are_found_before_the_first_stage(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    noise = torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8).numpy()
    for name in ("a.png", "b.png", "c.jpg"):
        Image.fromarray(noise).save(photos / name)
    for name in ("b.png", "c.jpg"):
        (photos / name).write_bytes((photos / name).read_bytes()[:600])
    target = "_target_: clcae.data.folder.ImageFolder"
    given = [f"+data={{{target}, root: {photos}, size: 8}}", "+other.pictures={_part_: data}"]
    with pytest.raises(
        UserError, match=r"data: 2 of 3 pictures cannot be read: .*b\.png: .*\.\.\."
    ):
        train(configure(tmp_path, *given))
    assert not (tmp_path / "toy" / "checkpoints").exists()
    for name in ("b.png", "c.jpg"):
        (photos / name).unlink()
    train(configure(tmp_path, *given))


def test_a_plateau_needs_a_monitored_value(tmp_path: Path) -> None:
    contrast = "+stages.fit.task={_target_: toy_tasks.Contrast, critic: {_part_: critic}}"
    plateau = "stages.fit.schedule={_target_: training.schedules.Plateau}"
    with pytest.raises(UsageError, match="monitored value"):
        train(configure(tmp_path, contrast, plateau, "~stages.fit.schedule.warmup"))
