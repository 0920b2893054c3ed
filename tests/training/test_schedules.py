"""Learning rates over a stage."""

import pytest
import torch
from torch import nn

from training.schedules import Constant, Exponential, Plateau, Schedule, Steps, WarmupCosine


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.2)


def rates(schedule: Schedule, steps: int) -> list[float]:
    found = []
    for step in range(steps):
        schedule.apply(step)
        found.append(schedule.optimizer.param_groups[0]["lr"])
    return found


def test_constant() -> None:
    assert rates(Constant(optimizer=optimizer(), total_steps=3), 3) == [0.2] * 3


def test_warmup_rises_and_decay_falls_to_the_final_factor() -> None:
    schedule = WarmupCosine(optimizer=optimizer(), total_steps=100, warmup=10, final=0.1)
    found = rates(schedule, 101)
    assert found[:11] == sorted(found[:11])
    assert found[10:] == sorted(found[10:], reverse=True)
    assert found[0] > 0
    assert found[10] == pytest.approx(0.2)
    assert found[100] == pytest.approx(0.02)


def test_steps_agree_with_torch() -> None:
    ours, theirs = optimizer(), optimizer()
    schedule = Steps(optimizer=ours, total_steps=9, milestones=[2, 3, 6], shrink=0.4)
    reference = torch.optim.lr_scheduler.MultiStepLR(theirs, [2, 3, 6], gamma=0.4)
    for rate in rates(schedule, 9):
        assert rate == pytest.approx(theirs.param_groups[0]["lr"])
        theirs.step()
        reference.step()


def test_exponential_is_that_of_in_domain_inversion() -> None:
    """Its counter is advanced twice in an iteration, and the rate falls by .8 every max_iters/4."""
    total, configured = 40, 0.16777216  # configs/task/in_domain_paper.yaml
    schedule = Exponential(optimizer=optimizer(), total_steps=total, final=configured)
    for step, rate in enumerate(rates(schedule, total)):
        assert rate == pytest.approx(0.2 * 0.8 ** (2 * step / (total / 4)))


def test_plateau_agrees_with_torch() -> None:
    ours, theirs = optimizer(), optimizer()
    schedule = Plateau(optimizer=ours, total_steps=1, patience=2, shrink=0.5)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        theirs, patience=2, factor=0.5, threshold=0.0, threshold_mode="abs", eps=0.0
    )
    for cost in [3.0, 2.0, 2.0, 2.5, 2.0, 2.0, 1.0, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 0.5]:
        schedule.validated(cost)
        reference.step(cost)
        schedule.apply(0)
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"])


def test_plateau_continues_from_its_state() -> None:
    first = Plateau(optimizer=optimizer(), total_steps=1, patience=1)
    for cost in [1.0, 2.0, 2.0, 2.0]:
        first.validated(cost)
    second = Plateau(optimizer=optimizer(), total_steps=1, patience=1)
    second.load_state_dict(first.state_dict())
    for schedule in (first, second):
        schedule.validated(3.0)
    assert first.state_dict() == second.state_dict()
    assert first.factor(0) == pytest.approx(0.01)
