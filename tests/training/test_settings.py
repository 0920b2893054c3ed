"""The trainer section: overrides, limits and mistakes."""

from typing import Any

import pytest

from training.errors import UsageError
from training.settings import run_settings, stage_settings

SECTION = {"steps": None, "batch_size": 16, "accumulate": 2}


def test_a_stage_overrides_the_run() -> None:
    settings = stage_settings(SECTION, {"steps": 7, "ema": {"half_life": 5.0}}, stage="fit")
    assert (settings.steps, settings.batch_size, settings.ema.half_life) == (7, 16, 5.0)


def test_limits_bound_every_stage() -> None:
    limited = {**SECTION, "limit_steps": 3, "limit_batch_size": 4}
    loop = stage_settings(limited, {"steps": 50}, stage="fit").loop()
    assert (loop["steps"], loop["batch_size"], loop["accumulate"]) == (3, 4, 1)
    loop = stage_settings(limited, {"steps": 2, "batch_size": 2}, stage="fit").loop()
    assert (loop["steps"], loop["batch_size"], loop["accumulate"]) == (2, 2, 2)


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


def test_mistakes_of_a_run() -> None:
    with pytest.raises(UsageError, match="trainer has no key thread"):
        run_settings({"thread": 1})
    with pytest.raises(UsageError, match="threads is 0"):
        run_settings({"threads": 0})
