"""Moving averages of weights."""

import copy

import pytest
import torch
from torch import Tensor, nn

from training.optim import ExponentialAverage


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def state(module: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(dict(module.state_dict()))


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one)


def changed(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))
    module(torch.randn(8, 3))  # moves the running statistics


@pytest.mark.parametrize("fails", [False, True])
def test_applied_swaps_and_restores_exactly(fails: bool) -> None:
    module = network()
    average = ExponentialAverage(modules={"module": module}, half_life=10.0)
    for step in range(5):
        changed(module)
        average.update(seen=8 * step, count=8)
    raw, tensors = state(module), list(module.parameters())
    try:
        with average.applied():
            assert equal(state(module), average.state_dict()["module"])
            assert not equal(state(module), raw)
            if fails:
                raise KeyError("inside")
    except KeyError:
        assert fails
    assert equal(state(module), raw)
    assert all(one is other for one, other in zip(tensors, module.parameters(), strict=True))


def test_half_life_counts_samples() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    average = ExponentialAverage(modules={"module": module}, half_life=100.0, rampup=None)
    nn.init.ones_(module.weight)
    for step in range(4):
        average.update(seen=25 * step, count=25)
    assert average.values["module"]["weight"].item() == pytest.approx(0.5)


def test_rampup_forgets_the_beginning() -> None:
    average = ExponentialAverage(modules={}, half_life=1e6, rampup=0.05)
    assert average.decay(seen=0, count=16) == 0.0
    assert average.decay(seen=1000, count=50) == pytest.approx(0.5)
    assert average.decay(seen=10**9, count=10**6) == pytest.approx(0.5)


def test_buffers_are_taken_as_they_are() -> None:
    module = network()
    average = ExponentialAverage(modules={"module": module}, half_life=1e6, rampup=None)
    changed(module)
    average.update(seen=0, count=1)
    averaged = average.state_dict()["module"]
    assert torch.equal(averaged["1.running_mean"], module.state_dict()["1.running_mean"])
    assert averaged["1.num_batches_tracked"] == 1


def test_impossible_half_life() -> None:
    with pytest.raises(ValueError, match="half_life"):
        ExponentialAverage(modules={}, half_life=0.0)
