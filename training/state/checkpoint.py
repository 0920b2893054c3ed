"""Checkpoints: from running objects to a file and back, strictly.

A checkpoint is a dictionary of tensors and plain values: the stage, the step, the best validation
value, the state of modules, averages, optimizers and schedules, and the means that are being
collected for the log. It holds no random state: that derives from the step. Its entry `digest`
covers all others, so that a damaged file is noticed.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clcae.files import replacing
from training.errors import UserError, caused_by_disk
from training.logger import Means
from training.optim import ExponentialAverage
from training.schedules import Schedule

_WEIGHTS = {"stage", "step", "best", "modules", "ema"}
_STATE = {"optimizers", "schedules", "means"}


class DamagedError(UserError):
    """A file of the run folder is not as a training wrote it."""


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Writes tensors and plain values with torch.save and their digest, whole or not at all.

    Raises:
        UserError: if the disk is full or cannot be written to; an older file is untouched.
    """
    try:
        with replacing(path, durable=True) as partial, partial.open("wb") as file:
            torch.save({**content, "digest": digest_of(content)}, file)
    except (OSError, RuntimeError) as error:
        cause = caused_by_disk(error)  # torch.save turns a failed write into a RuntimeError
        if cause is None:
            raise
        kept = "the former one is intact" if path.exists() else "nothing was written"
        reason = os.strerror(cause.errno or 0)
        raise UserError(f"cannot write {path}: {reason} ({kept})") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU.

    Raises:
        DamagedError: if the file is damaged, or no training wrote it.
        UserError: if there is no such file, or it is no regular file.
    """
    if not path.exists():
        raise UserError(f"there is no checkpoint {path}")
    if not path.is_file():
        raise UserError(f"cannot read the checkpoint {path}: it is no regular file")
    with path.open("rb") as file:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            # Not in torch's words, which advise to load it with weights_only=False.
            raise _damaged(path, type(error).__name__) from error
    if not isinstance(content, dict):
        raise _damaged(path, f"it holds a {type(content).__name__}, expected a dictionary")
    if "digest" in content:
        digest = content.pop("digest")
        if digest != digest_of(content):
            raise _damaged(path, "its digest is another one")
    elif unknown := set(content) - _WEIGHTS - _STATE:  # files of former versions have no digest
        raise _damaged(path, f"unknown entries, such as {str(min(unknown, key=str))[:40]!r}")
    return content


def digest_of(content: Any) -> str:
    """Computes the SHA-256 digest of nested dictionaries and lists of tensors and plain values."""
    digest = hashlib.sha256()

    def update(value: Any) -> None:
        if isinstance(value, Tensor):
            plain = value.detach().cpu().contiguous()
            digest.update(f"tensor {plain.dtype} {tuple(plain.shape)}\n".encode())
            content_bytes: Any = plain.reshape(-1).view(torch.uint8).numpy()
            digest.update(content_bytes)
        elif isinstance(value, Mapping):
            digest.update(f"mapping {len(value)}\n".encode())
            for key, inner in value.items():
                update(key)
                update(inner)
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            kind = "tuple" if isinstance(value, tuple) else "list"
            digest.update(f"{kind} {len(value)}\n".encode())
            for inner in value:
                update(inner)
        else:
            digest.update(f"{value!r}\n".encode(errors="backslashreplace"))

    update(content)
    return digest.hexdigest()


@dataclass(kw_only=True)
class TrainingState:
    """Everything of a stage that changes while it trains, and that its checkpoints hold."""

    stage: str
    modules: Mapping[str, nn.Module]
    ema: ExponentialAverage
    optimizers: Mapping[str, torch.optim.Optimizer]
    schedules: Mapping[str, Schedule]
    means: Means
    steps: int  # of the whole stage
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
            DamagedError: if the file is damaged, or no training wrote it.
            UserError: if it is of another stage, or names or shapes differ.
        """
        content = load_checkpoint(path)
        if missing := sorted((_WEIGHTS | _STATE) - set(content)):
            raise _damaged(path, f"{', '.join(missing)} missing")
        step, best = content["step"], content["best"]
        if type(step) is not int or not 0 <= step <= self.steps:
            raise _damaged(path, f"it is at step {str(step)[:40]} of {self.steps}")
        if best is not None and type(best) is not float:
            raise _damaged(path, f"its best value is {str(best)[:40]!r}")
        load_weights(content, path=path, stage=self.stage, modules=self.modules, ema=self.ema)
        _check_names(content["optimizers"], self.optimizers, path=path, kind="optimizers")
        for name, optimizer in self.optimizers.items():
            try:
                optimizer.load_state_dict(content["optimizers"][name])
            except (ValueError, KeyError) as error:
                raise UserError(f"{path}: optimizer {name!r} does not fit: {error}") from error
            except (TypeError, AttributeError) as error:
                raise _damaged(path, f"optimizer {name!r}") from error
        try:
            for name, schedule in self.schedules.items():
                schedule.load_state_dict(content["schedules"][name])
            self.means.load_state_dict(content["means"])
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise _damaged(path, "schedules or means") from error
        self.step, self.best = step, best


def load_weights(
    content: Mapping[str, Any],
    *,
    path: Path,
    stage: str,
    modules: Mapping[str, nn.Module],
    ema: ExponentialAverage,
) -> None:
    """Loads modules and their averages from a checkpoint.

    Args:
        content: the checkpoint.
        path: its file, for messages.
        stage: name of the stage that it must be of.
        modules: name -> module, exactly those of the checkpoint.
        ema: averages of some of them.

    Raises:
        DamagedError: if entries are missing, or of another kind.
        UserError: if it is of another stage, or names or shapes differ.
    """
    if content.get("stage") != stage:
        found = str(content.get("stage"))[:40]
        raise UserError(f"{path} is a checkpoint of stage {found!r}, expected {stage!r}")
    _check_names(content.get("modules"), modules, path=path, kind="modules")
    _check_names(content.get("ema"), ema.values, path=path, kind="averaged modules")
    for name, module in modules.items():
        state = content["modules"][name]
        _check_tensors(state, path=path, what=f"module {name!r}")
        check_state(state, module.state_dict(), what=f"{path}: module {name!r}")
        module.load_state_dict(state, strict=True)
    for name, values in ema.values.items():
        state = content["ema"][name]
        _check_tensors(state, path=path, what=f"average of {name!r}")
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
    problems += [f"{str(key)[:80]} is not expected" for key in given if key not in expected]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(f"{what} does not fit: {'; '.join(problems[:3])}{more}")


def _check_names(given: Any, expected: Mapping[str, Any], *, path: Path, kind: str) -> None:
    if not isinstance(given, Mapping):
        raise _damaged(path, f"no {kind}")
    if set(given) != set(expected):
        names = ", ".join(str(name)[:40] for name in [*given][:5])
        raise UserError(f"{path} holds the {kind} {names}, expected {', '.join(expected)}")


def _check_tensors(state: Any, *, path: Path, what: str) -> None:
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise _damaged(path, f"{what} is no dictionary of tensors")


def _damaged(path: Path, reason: str) -> DamagedError:
    return DamagedError(
        f"cannot read the checkpoint {path}: it is damaged, or no training wrote it ({reason})"
    )
