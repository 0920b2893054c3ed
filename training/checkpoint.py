"""From running objects to a checkpoint and back, strictly.

A checkpoint is a dictionary of tensors and plain values: the stage, the step, the best validation
value, the state of modules, averages, optimizers and schedules, and the means that are being
collected for the log. It holds no random state: that derives from the step.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.ema import ExponentialAverage
from training.errors import UserError
from training.means import Means
from training.schedules import Schedule


def weights_of(modules: Mapping[str, nn.Module], ema: ExponentialAverage) -> dict[str, Any]:
    """The entries of a checkpoint that hold weights."""
    return {
        "modules": {name: dict(module.state_dict()) for name, module in modules.items()},
        "ema": ema.state_dict(),
    }


def load_weights(
    content: Mapping[str, Any],
    *,
    path: Path,
    modules: Mapping[str, nn.Module],
    ema: ExponentialAverage,
) -> None:
    """Loads the modules and their averages.

    Args:
        content: the checkpoint.
        path: where it came from, for messages.
        modules: name -> module, exactly those of the checkpoint.
        ema: averages of some of them.

    Raises:
        UserError: names or shapes differ.
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


def capture(
    *,
    stage: str,
    step: int,
    best: float | None,
    modules: Mapping[str, nn.Module],
    ema: ExponentialAverage,
    optimizers: Mapping[str, torch.optim.Optimizer],
    schedules: Mapping[str, Schedule],
    means: Means,
) -> dict[str, Any]:
    """Everything that resuming needs."""
    return {
        "stage": stage,
        "step": step,
        "best": best,
        **weights_of(modules, ema),
        "optimizers": {name: optimizer.state_dict() for name, optimizer in optimizers.items()},
        "schedules": {name: schedule.state_dict() for name, schedule in schedules.items()},
        "means": means.state_dict(),
    }


def restore(
    content: Mapping[str, Any],
    *,
    path: Path,
    stage: str,
    modules: Mapping[str, nn.Module],
    ema: ExponentialAverage,
    optimizers: Mapping[str, torch.optim.Optimizer],
    schedules: Mapping[str, Schedule],
    means: Means,
) -> tuple[int, float | None]:
    """Puts back what ``capture`` took.

    Returns:
        The step and the best validation value.

    Raises:
        UserError: the checkpoint is of another stage, or names or shapes differ.
    """
    if content.get("stage") != stage:
        raise UserError(
            f"{path} is a checkpoint of stage {content.get('stage')!r}, expected {stage!r}"
        )
    load_weights(content, path=path, modules=modules, ema=ema)
    _check_names(content["optimizers"], optimizers, path=path, kind="optimizers")
    for name, optimizer in optimizers.items():
        try:
            optimizer.load_state_dict(content["optimizers"][name])
        except (ValueError, KeyError) as error:
            raise UserError(f"{path}: optimizer {name!r} does not fit: {error}") from error
    for name, schedule in schedules.items():
        schedule.load_state_dict(content["schedules"][name])
    means.load_state_dict(content["means"])
    return content["step"], content["best"]


def check_state(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, what: str) -> None:
    """Compares the names and shapes of two state dicts.

    Args:
        given: what a file holds.
        expected: what the module holds.
        what: of what, for the message.

    Raises:
        UserError: they differ; names the first differences of each kind.
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
