"""The trainer section of a configuration, checked: unknown keys and impossible values are errors.

One section serves a whole run; each stage may override what concerns a stage.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from training.errors import UsageError
from training.iteration import Precision

OPTIONAL_COUNTS = {
    "validate_every",
    "sample_every",
    "save_every",
    "limit_steps",
    "limit_batch_size",
}
COUNTS = OPTIONAL_COUNTS | {"steps", "batch_size", "accumulate", "log_every", "keep_last"}


@dataclass(frozen=True, kw_only=True)
class AverageSettings:
    """The moving average of weights; see ``training.ema``."""

    half_life: float = 10_000.0
    rampup: float | None = 0.05


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """What a stage takes from ``trainer``: arguments of ``training.trainer.Trainer``, and these.

    Args:
        limit_steps: bound on ``steps``, for trials; None: no bound.
        limit_batch_size: bound on ``batch_size``, for trials; where it acts nothing is accumulated.
        keep_last: how many of the latest checkpoints are kept.
    """

    steps: int
    batch_size: int
    accumulate: int = 1
    precision: Precision = "float32"
    clip_norm: float | None = None
    validate_every: int | None = None
    sample_every: int | None = None
    save_every: int | None = None
    log_every: int = 50
    finish_with: str = "last"
    keep_last: int = 1
    limit_steps: int | None = None
    limit_batch_size: int | None = None
    ema: AverageSettings = field(default_factory=AverageSettings)

    def loop(self) -> dict[str, Any]:
        """The arguments of ``Trainer`` that are plain values."""
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        for other in ("ema", "keep_last", "limit_steps", "limit_batch_size"):
            del values[other]
        if self.limit_steps is not None:
            values["steps"] = min(self.steps, self.limit_steps)
        if self.limit_batch_size is not None and self.limit_batch_size < self.batch_size:
            values["batch_size"] = self.limit_batch_size
            values["accumulate"] = 1
        return values


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What concerns the process as a whole.

    Args:
        threads: threads of torch on the CPU; None: torch's choice.
        progress: whether progress is shown.
        debug: whether an error shows its stack trace.
        suffix: appended to the name of the run, so that a trial has a folder of its own.
        tf32: whether float32 products may be computed in TF32 on a GPU.
    """

    threads: int | None = None
    progress: bool = True
    debug: bool = False
    suffix: str | None = None
    tf32: bool = False


def run_settings(section: Mapping[str, Any]) -> RunSettings:
    """The process's part of the ``trainer`` section.

    Raises:
        UsageError: a key is unknown.
    """
    known = {entry.name for entry in dataclasses.fields(RunSettings)}
    _check_keys(section, known | _stage_keys(), where="trainer")
    settings = RunSettings(**{key: value for key, value in section.items() if key in known})
    if settings.threads is not None:
        _check_count(settings.threads, "trainer.threads")
    return settings


def stage_settings(
    section: Mapping[str, Any], overrides: Mapping[str, Any], *, stage: str
) -> StageSettings:
    """The settings of one stage.

    Args:
        section: the ``trainer`` section of the run.
        overrides: the ``trainer`` section of the stage.
        stage: its name, for messages.

    Raises:
        UsageError: a key is unknown or a value impossible.
    """
    where = f"stages.{stage}.trainer"
    _check_keys(overrides, _stage_keys(), where=where)
    values = {key: value for key, value in {**section, **overrides}.items() if key in _stage_keys()}
    average = values.pop("ema", None) or {}
    _check_keys(
        average, {entry.name for entry in dataclasses.fields(AverageSettings)}, where=f"{where}.ema"
    )
    given = section.get("steps")
    if given is not None and overrides.get("steps") is not None:
        raise UsageError(
            f"trainer.steps is {given}, but {where}.steps says otherwise: set the latter, "
            f"or trainer.limit_steps={given} for every stage"
        )
    for key in ("steps", "batch_size"):
        if values.get(key) is None:
            raise UsageError(f"{where}.{key} is not set, and neither is trainer.{key}")
    for key in COUNTS:
        if values.get(key) is not None or key not in OPTIONAL_COUNTS:
            _check_count(values.get(key, 1), f"{where}.{key}")
    _check_choice(values.get("precision", "float32"), get_args(Precision), f"{where}.precision")
    _check_choice(values.get("finish_with", "last"), ("last", "best"), f"{where}.finish_with")
    return StageSettings(ema=AverageSettings(**average), **values)


def _stage_keys() -> set[str]:
    return {entry.name for entry in dataclasses.fields(StageSettings)}


def _check_keys(section: Mapping[str, Any], known: set[str], *, where: str) -> None:
    unknown = sorted(set(section) - known)
    if unknown:
        raise UsageError(
            f"{where} has no key {', '.join(unknown)}; there are {', '.join(sorted(known))}"
        )


def _check_count(value: Any, where: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{where} is {value!r}, expected a whole number of at least 1")


def _check_choice(value: Any, choices: tuple[str, ...], where: str) -> None:
    if value not in choices:
        raise UsageError(f"{where} is {value!r}, expected one of {', '.join(choices)}")
