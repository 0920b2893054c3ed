"""The trainer section: overrides, limits and mistakes."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from toy_runs import ROOT, configure

from training.errors import UsageError
from training.run import stage_settings, train

DEFAULT: Any = OmegaConf.to_container(OmegaConf.load(ROOT / "configs/trainer/default.yaml"))
SECTION = {**DEFAULT, "batch_size": 16, "accumulate": 2}


def test_a_stage_overrides_the_run() -> None:
    settings = stage_settings(SECTION, {"steps": 7, "ema": {"half_life": 5.0}}, stage="fit")
    assert (settings.steps, settings.batch_size, settings.ema) == (
        *(7, 16, {"half_life": 5.0, "rampup": 0.05}),
    )


def test_limits_bound_every_stage() -> None:
    limited = {**SECTION, "limit_steps": 3, "limit_batch_size": 4}
    loop = stage_settings(limited, {"steps": 50}, stage="fit")
    assert (loop.steps, loop.batch_size, loop.accumulate) == (3, 4, 1)
    loop = stage_settings(limited, {"steps": 2, "batch_size": 2}, stage="fit")
    assert (loop.steps, loop.batch_size, loop.accumulate) == (2, 2, 2)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({}, "steps is not set, and neither is"),
        ({"stepz": 3}, r"stages\.fit\.trainer has no key stepz; there are .*steps"),
        ({"steps": 0}, r"stages\.fit\.trainer\.steps is 0"),
        ({"steps": 2.5}, "steps is 2.5"),
        ({"steps": None}, "steps is not set"),
        ({"steps": 1, "log_every": None}, "log_every is None"),
        (
            {"steps": 1, "precision": "float16"},
            "precision is 'float16', expected one of float32, bfloat16",
        ),
        ({"steps": 1, "finish_with": "first"}, "expected one of last, best"),
        ({"ema": {"decay": 0.9}}, r"trainer\.ema has no key decay"),
    ],
)
def test_mistakes_of_a_stage(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        stage_settings(SECTION, overrides, stage="fit")


def test_steps_of_the_run_are_not_ignored_in_silence() -> None:
    section = {**SECTION, "steps": 10}
    assert stage_settings(section, {}, stage="fit").steps == 10
    with pytest.raises(UsageError, match=r"trainer\.steps is 10.*limit_steps=10"):
        stage_settings(section, {"steps": 50}, stage="fit")


def test_defaults_stand_in_the_configuration_alone() -> None:
    for key in SECTION:
        lacking = {name: value for name, value in SECTION.items() if name != key}
        with pytest.raises(UsageError, match=f"trainer lacks {key}, which configs/trainer/default"):
            stage_settings(lacking, {"steps": 1}, stage="fit")
    with pytest.raises(UsageError, match=r"trainer\.ema lacks rampup"):
        stage_settings({**SECTION, "ema": {"half_life": 1.0}}, {"steps": 1}, stage="fit")


def test_mistakes_of_a_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="trainer has no key thread"):
        train(configure(tmp_path, "+trainer.thread=1"))
    with pytest.raises(UsageError, match="threads is 0"):
        train(configure(tmp_path, "trainer.threads=0"))
