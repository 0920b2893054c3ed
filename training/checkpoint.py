"""Checkpoints: from running objects to a file and back, strictly.

A checkpoint is a dictionary of tensors and plain values: the stage, the step, the best validation
value, the state of modules, averages, optimizers and schedules, and the means that are being
collected for the log. It holds no random state: that derives from the step.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clcae.files import FULL_DISK, replacing
from training.errors import UserError
from training.logger import Means
from training.optim import ExponentialAverage
from training.schedules import Schedule


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Writes tensors and plain values with torch.save, whole or not at all.

    Raises:
        UserError: if the disk is full; an older file is untouched.
    """
    try:
        with replacing(path, durable=True) as partial, partial.open("wb") as file:
            torch.save(dict(content), file)
    except (OSError, RuntimeError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__context__  # torch.save turns a failed write into a RuntimeError
        if cause is not None and cause.errno in FULL_DISK:
            kept = "the former one is intact" if path.exists() else "nothing was written"
            raise UserError(f"cannot write {path}: {os.strerror(cause.errno)} ({kept})") from error
        raise


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU.

    Raises:
        UserError: if the file cannot be read.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"there is no checkpoint {path}") from None
    except Exception as error:
        # Not in torch's words, which advise to load it with weights_only=False.
        kind = type(error).__name__
        raise UserError(
            f"cannot read the checkpoint {path}: it is damaged, or no training wrote it ({kind})"
        ) from error
    return content


@dataclass(kw_only=True)
class TrainingState:
    """Everything of a stage that changes while it trains, and that its checkpoints hold."""

    stage: str
    modules: Mapping[str, nn.Module]
    ema: ExponentialAverage
    optimizers: Mapping[str, torch.optim.Optimizer]
    schedules: Mapping[str, Schedule]
    means: Means
    step: int = 0
    best: float | None = None  # lowest validation cost so far

    def weights(self) -> dict[str, Any]:
        """Collects what a checkpoint of the best weights holds."""
        return {
            "stage": self.stage,
            "step": self.step,
            "best": self.best,
            "modules": {name: dict(module.state_dict()) for name, module in self.modules.items()},
            "ema": self.ema.values,
        }

    def everything(self) -> dict[str, Any]:
        """Collects what a checkpoint to resume from holds."""
        return {
            **self.weights(),
            "optimizers": {name: one.state_dict() for name, one in self.optimizers.items()},
            "schedules": {name: one.state_dict() for name, one in self.schedules.items()},
            "means": self.means.state_dict(),
        }

    def resume(self, path: Path) -> None:
        """Loads a checkpoint of `everything`.

        Raises:
            UserError: if it is of another stage, or names or shapes differ.
        """
        content = load_checkpoint(path)
        if content.get("stage") != self.stage:
            found = content.get("stage")
            raise UserError(f"{path} is a checkpoint of stage {found!r}, expected {self.stage!r}")
        load_weights(content, path=path, modules=self.modules, ema=self.ema)
        _check_names(content["optimizers"], self.optimizers, path=path, kind="optimizers")
        for name, optimizer in self.optimizers.items():
            try:
                optimizer.load_state_dict(content["optimizers"][name])
            except (ValueError, KeyError) as error:
                raise UserError(f"{path}: optimizer {name!r} does not fit: {error}") from error
        for name, schedule in self.schedules.items():
            schedule.load_state_dict(content["schedules"][name])
        self.means.load_state_dict(content["means"])
        self.step, self.best = content["step"], content["best"]


def load_weights(
    content: Mapping[str, Any],
    *,
    path: Path,
    modules: Mapping[str, nn.Module],
    ema: ExponentialAverage,
) -> None:
    """Loads exactly the modules of a checkpoint and their averages; `path` is for messages.

    Raises:
        UserError: if names or shapes differ.
    """
    _check_names(content["modules"], modules, path=path, kind="modules")
    _check_names(content["ema"], ema.values, path=path, kind="averaged modules")
    for name, module in modules.items():
        state = content["modules"][name]
        check_state(state, module.state_dict(), what=f"{path}: module {name!r}")
        module.load_state_dict(state, strict=True)
    for name, values in ema.values.items():
        state = content["ema"][name]
        check_state(state, values, what=f"{path}: average of {name!r}")
        for key, value in values.items():
            value.copy_(state[key])


def check_state(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, what: str) -> None:
    """Checks that a state dict has the expected names and shapes; `what` is for the message.

    Raises:
        UserError: if they differ, with the first differences.
    """
    problems = [
        f"{key} is {list(given[key].shape)}, expected {list(value.shape)}"
        for key, value in expected.items()
        if key in given and given[key].shape != value.shape
    ]
    problems += [f"{key} is missing" for key in expected if key not in given]
    problems += [f"{key} is not expected" for key in given if key not in expected]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(f"{what} does not fit: {'; '.join(problems[:3])}{more}")


def _check_names(
    given: Mapping[str, Any], expected: Mapping[str, Any], *, path: Path, kind: str
) -> None:
    if set(given) != set(expected):
        raise UserError(f"{path} holds the {kind} {sorted(given)}, expected {sorted(expected)}")
