"""Learning rates over a stage: constant, warm-up then cosine or linear decay, and plateau.

A schedule multiplies the learning rates that its optimizer was built with. All but the plateau are
functions of the step alone.
"""

import math
from typing import Any

import torch


class Schedule:
    """Sets the learning rates of one optimizer.

    Args:
        optimizer: whose rates it sets; those it holds now are the base.
        total_steps: steps of the stage.
    """

    needs_validation: bool = False  # whether it can do nothing for a task without a monitored value

    def __init__(self, *, optimizer: torch.optim.Optimizer, total_steps: int) -> None:
        self.optimizer = optimizer
        self.total_steps = total_steps
        self.base = [float(group["lr"]) for group in optimizer.param_groups]

    def factor(self, step: int) -> float:
        """What the base rates are multiplied with in iteration ``step``, in [0, 1]."""
        raise NotImplementedError

    def apply(self, step: int) -> None:
        """Sets the rates for iteration ``step``."""
        factor = self.factor(step)
        for group, base in zip(self.optimizer.param_groups, self.base, strict=True):
            group["lr"] = base * factor

    def validated(self, cost: float) -> None:
        """Takes note of a validation, where the schedule depends on it.

        Args:
            cost: the monitored value, turned so that lower is better.
        """

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold, beside the step."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from ``state_dict``."""


class Constant(Schedule):
    """The base rate throughout."""

    def factor(self, step: int) -> float:
        """One."""
        return 1.0


class WarmupCosine(Schedule):
    """Rises linearly over the warm-up, then falls along half a cosine.

    Args:
        optimizer: whose rates it sets.
        total_steps: steps of the stage; the end of the fall.
        warmup: steps of the rise.
        final: the factor at the end, in [0, 1].
    """

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
        """The rise below ``warmup``, then the fall."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        done = min((step - self.warmup) / max(self.total_steps - self.warmup, 1), 1.0)
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * done))


class WarmupLinear(Schedule):
    """Rises linearly over the warm-up, stays, and falls linearly at the end.

    Args:
        optimizer: whose rates it sets.
        total_steps: steps of the stage; the end of the fall.
        warmup: steps of the rise.
        decay: steps of the fall; None: all that follow the warm-up.
        final: the factor at the end, in [0, 1].
    """

    def __init__(
        self,
        *,
        optimizer: torch.optim.Optimizer,
        total_steps: int,
        warmup: int = 0,
        decay: int | None = None,
        final: float = 0.0,
    ) -> None:
        super().__init__(optimizer=optimizer, total_steps=total_steps)
        self.warmup = warmup
        self.decay = max(total_steps - warmup, 1) if decay is None else max(decay, 1)
        self.final = final

    def factor(self, step: int) -> float:
        """The rise below ``warmup``, then the fall."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        left = min(max(self.total_steps - step, 0) / self.decay, 1.0)
        return self.final + (1.0 - self.final) * left


class Plateau(Schedule):
    """Lowers the rate when the monitored validation value has stopped improving.

    Matches ``torch.optim.lr_scheduler.ReduceLROnPlateau`` with an absolute threshold of zero; the
    defaults are those of the official CLCAE training.

    Args:
        optimizer: whose rates it sets.
        total_steps: steps of the stage; not used.
        patience: validations without improvement that are tolerated.
        shrink: what the rate is multiplied with, in (0, 1).
        minimum: the lowest factor.
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
        """What the plateaus so far have left, whatever the step."""
        return self.scale

    def validated(self, cost: float) -> None:
        """Lowers the rate where ``cost`` has not improved for longer than the patience."""
        if self.best is None or cost < self.best:
            self.best = cost
            self.waited = 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.scale = max(self.scale * self.shrink, self.minimum)
            self.waited = 0

    def state_dict(self) -> dict[str, Any]:
        """The factor, the best cost, and the validations since."""
        return {"scale": self.scale, "best": self.best, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from ``state_dict``."""
        self.scale = state["scale"]
        self.best = state["best"]
        self.waited = state["waited"]
