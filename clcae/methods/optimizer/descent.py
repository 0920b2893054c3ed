"""Adam on variables of many pictures at once, each picture by itself.

Kingma and Ba 2015, algorithm 1, with the moments of every picture in rows of their own, so that a
picture whose loss no longer falls can leave the batch without a change to the others. The ramps of
the learning rate are those of StyleGAN2's projector (Karras et al. 2020, appendix D).
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

Schedule = Literal["ramp", "constant"]
Variables = dict[str, Tensor]  # name -> [N, ...], a row for each picture
# (variables [n, ...], numbers of their pictures [n], step) -> loss of each [n]
Objective = Callable[[Variables, Tensor, int], Tensor]

BETAS, EPSILON = (0.9, 0.999), 1e-8
LARGEST_RATE = 1e6  # of a search or a tuning: what is larger overflows


def rate_factor(schedule: Schedule, done: float) -> float:
    """Returns the factor of the learning rate once a part of the steps is done, in [0, 1].

    "ramp" rises over the first 5 % and falls along half a cosine over the last quarter.
    """
    if schedule == "constant":
        return 1.0
    fall = min(1.0, (1.0 - done) / 0.25)
    return (0.5 - 0.5 * math.cos(math.pi * fall)) * min(1.0, done / 0.05 + 1e-3)


def descend(
    start: Mapping[str, Tensor],  # [N, ...] each
    objective: Objective,
    *,
    steps: int,
    rates: Mapping[str, float],
    schedule: Schedule = "ramp",
    patience: int | None = None,
    least_gain: float = 0.01,
    project: Callable[[Variables], None] | None = None,
    on_step: Callable[[], object] | None = None,
) -> Variables:
    """Minimises the loss of every picture; returns its variables after its last step.

    Args:
        start: where the variables begin; left as it is.
        objective: computes the losses; gradients flow to the variables alone.
        steps: at most so many.
        rates: highest learning rate of each variable.
        schedule: of the rates over the steps.
        patience: a picture is left where it is once so many steps have brought its lowest loss down
            by less than `least_gain`; None makes all steps.
        least_gain: part of the lowest loss, 0 or more.
        project: changes the variables in place after every step.
        on_step: called after every step.
    """
    found = {name: value.detach().clone() for name, value in start.items()}
    variables = {name: value.clone() for name, value in found.items()}
    first, second = ({n: torch.zeros_like(v) for n, v in found.items()} for _ in range(2))
    count = len(next(iter(found.values())))
    device = next(iter(found.values())).device
    pictures = torch.arange(count, device=device)
    lowest = torch.full([count], math.inf, device=device)  # where the patience was last renewed
    waited = torch.zeros(count, dtype=torch.int64, device=device)
    for step in range(steps):
        leaves = {name: value.detach().requires_grad_() for name, value in variables.items()}
        with torch.enable_grad():
            losses = objective(leaves, pictures, step)
            gradients = torch.autograd.grad(losses.sum(), [*leaves.values()])
        factor = rate_factor(schedule, step / steps)
        for name, gradient in zip(leaves, gradients, strict=True):
            _adam(
                variables[name],
                gradient,
                first[name],
                second[name],
                step=step,
                rate=rates[name] * factor,
            )
        if project is not None:
            project(variables)
        if on_step is not None:
            on_step()
        if patience is None:
            continue
        losses = losses.detach()
        falls = losses < lowest * (1.0 - least_gain)
        lowest = torch.where(falls, losses, lowest)
        waited = torch.where(falls, 0, waited + 1)
        going = waited < patience
        if not bool(going.all()):
            for name, value in variables.items():
                found[name][pictures[~going]] = value[~going]
            pictures, lowest, waited = pictures[going], lowest[going], waited[going]
            for table in (variables, first, second):
                for name, value in table.items():
                    table[name] = value[going]
            if not len(pictures):
                return found
    for name, value in variables.items():
        found[name][pictures] = value
    return found


@torch.no_grad()
def _adam(
    variable: Tensor, gradient: Tensor, first: Tensor, second: Tensor, *, step: int, rate: float
) -> None:
    """Makes one step of Adam, the moments and the variable in place."""
    first.lerp_(gradient, 1.0 - BETAS[0])
    second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1.0 - BETAS[1])
    scale = math.sqrt(1.0 - BETAS[1] ** (step + 1))
    denominator = (second.sqrt() / scale).add_(EPSILON)
    variable.addcdiv_(first, denominator, value=-rate / (1.0 - BETAS[0] ** (step + 1)))
