"""Learning rate schedules over a stage: constant, warm-up and cosine, exponential, steps, plateau.

A schedule multiplies the learning rates that its optimizer was built with. All but the plateau are
functions of the step alone.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch


class Schedule:
    """Sets the learning rates of one optimizer, whose current rates are the base."""

    needs_validation: bool = False  # whether it does nothing for a task without a monitored value

    def __init__(self, *, optimizer: torch.optim.Optimizer, total_steps: int) -> None:
        self.optimizer = optimizer
        self.total_steps = total_steps
        self.base = [float(group["lr"]) for group in optimizer.param_groups]

    def factor(self, step: int) -> float:
        """Returns the factor of the base rates in iteration `step`, in [0, 1]."""
        raise NotImplementedError

    def apply(self, step: int) -> None:
        """Sets the rates of iteration `step`."""
        factor = self.factor(step)
        for group, base in zip(self.optimizer.param_groups, self.base, strict=True):
            group["lr"] = base * factor

    def validated(self, cost: float) -> None:
        """Receives the monitored value of a validation, negated if higher is better."""

    def state_dict(self) -> dict[str, Any]:
        """Returns the state for a checkpoint; the step is stored separately."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores `state_dict`."""


class Constant(Schedule):
    """Keeps the base rate."""

    def factor(self, step: int) -> float:
        return 1.0


class WarmupCosine(Schedule):
    """Rises linearly over the warm-up, then decays along half a cosine to `final`, in [0, 1]."""

    def __init__(
        self,
        *,
        optimizer: torch.optim.Optimizer,
        total_steps: int,
        warmup: int = 0,
        final: float = 0.0,
    ) -> None:
        super().__init__(optimizer=optimizer, total_steps=total_steps)
        self.warmup = warmup
        self.final = final

    def factor(self, step: int) -> float:
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        done = min((step - self.warmup) / max(self.total_steps - self.warmup, 1), 1.0)
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * done))


class Exponential(Schedule):
    """Decays exponentially over the stage to `final`, in (0, 1]."""

    def __init__(self, *, optimizer: torch.optim.Optimizer, total_steps: int, final: float) -> None:
        super().__init__(optimizer=optimizer, total_steps=total_steps)
        self.final = final

    def factor(self, step: int) -> float:
        return float(self.final ** (step / self.total_steps))


class Steps(Schedule):
    """Multiplies the rate by `shrink`, in (0, 1), at every milestone, a number of steps."""

    def __init__(
        self,
        *,
        optimizer: torch.optim.Optimizer,
        total_steps: int,
        milestones: Sequence[int],
        shrink: float = 0.5,
    ) -> None:
        super().__init__(optimizer=optimizer, total_steps=total_steps)
        self.milestones = [*milestones]
        self.shrink = shrink

    def factor(self, step: int) -> float:
        return float(self.shrink ** sum(step >= milestone for milestone in self.milestones))


class Plateau(Schedule):
    """Lowers the rate when the monitored validation value has stopped improving.

    Matches torch.optim.lr_scheduler.ReduceLROnPlateau with an absolute threshold of zero; the
    defaults are those of the official CLCAE training.

    Args:
        patience: validations without improvement that are tolerated.
        shrink: factor of each reduction, in (0, 1).
        minimum: lowest factor.
    """

    needs_validation = True

    def __init__(
        self,
        *,
        optimizer: torch.optim.Optimizer,
        total_steps: int,
        patience: int = 10,
        shrink: float = 0.1,
        minimum: float = 0.0,
    ) -> None:
        super().__init__(optimizer=optimizer, total_steps=total_steps)
        self.patience = patience
        self.shrink = shrink
        self.minimum = minimum
        self.scale = 1.0
        self.best: float | None = None
        self.waited = 0

    def factor(self, step: int) -> float:
        return self.scale

    def validated(self, cost: float) -> None:
        if self.best is None or cost < self.best:
            self.best = cost
            self.waited = 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.scale = max(self.scale * self.shrink, self.minimum)
            self.waited = 0

    def state_dict(self) -> dict[str, Any]:
        return {"scale": self.scale, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scale = state["scale"]
        self.best = state["best"]
        self.waited = state["waited"]
