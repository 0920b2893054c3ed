"""Ranger against the trajectory of the official optimizer; moving averages of weights."""

import copy
import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import official
import pytest
import torch
from torch import Tensor, nn

from training.optim import ExponentialAverage, Ranger, centralize_gradients

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden" / "functions" / "ranger.npz"
TOLERANCE = 1e-5  # of the root mean square; from the README of the fixtures
TRAINED = ("a", "W", "K")


def golden_problem() -> tuple[dict[str, Tensor], dict[str, nn.Parameter]]:
    """The constants and the starting point of the golden trajectory."""
    meta = json.loads(str(np.load(GOLDEN)["meta"]))
    values = {
        name: official.latent(name, shape, meta["seed"]) for name, shape in meta["shapes"].items()
    }
    return values, {name: nn.Parameter(values[name].clone()) for name in TRAINED}


def golden_loss(values: Mapping[str, Tensor], trained: Mapping[str, nn.Parameter]) -> Tensor:
    weights = torch.arange(1.0, 6.0)
    quadratic = 0.5 * (weights * (trained["a"] - values["t"]).square()).sum()
    linear = 0.5 * (trained["W"] @ values["X"] - values["Y"]).square().mean()
    kernel = (trained["K"] * values["M"]).sum() + 0.5 * trained["K"].square().sum()
    return quadratic + linear + kernel


def advance(
    optimizer: Ranger, values: Mapping[str, Tensor], trained: Mapping[str, nn.Parameter]
) -> None:
    optimizer.zero_grad()
    golden_loss(values, trained).backward()
    optimizer.step()


@pytest.mark.parametrize("prefix", ["", "decay."])
def test_follows_the_official_trajectory(prefix: str) -> None:
    golden = np.load(GOLDEN)
    meta = json.loads(str(golden["meta"]))
    values, trained = golden_problem()
    decay = meta["weight_decay"][prefix]
    optimizer = Ranger(list(trained.values()), lr=meta["lr"], weight_decay=decay)
    for step in range(meta["steps"]):
        advance(optimizer, values, trained)
        for name in TRAINED:
            expected = golden[prefix + name]
            error = np.abs(trained[name].detach().numpy() - expected[step]).max()
            assert error <= TOLERANCE * np.sqrt((expected**2).mean()), (step, name)


@pytest.mark.parametrize("saved_at", [1, 4, 6, 7])
def test_state_continues_exactly_within_a_lookahead_period(saved_at: int) -> None:
    values, whole = golden_problem()
    optimizer = Ranger(list(whole.values()), lr=0.01)
    for _ in range(saved_at):
        advance(optimizer, values, whole)
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "trained": dict(whole)}, file)
    file.seek(0)
    content = torch.load(file, weights_only=True)
    resumed = {name: nn.Parameter(value.detach()) for name, value in content["trained"].items()}
    other = Ranger(list(resumed.values()), lr=0.01)
    other.load_state_dict(content["optimizer"])
    for _ in range(13):
        advance(optimizer, values, whole)
        advance(other, values, resumed)
    for name in TRAINED:
        assert torch.equal(whole[name], resumed[name])


def test_centralisation_leaves_vectors_alone() -> None:
    matrix, vector = nn.Parameter(torch.zeros(3, 2, 2)), nn.Parameter(torch.zeros(3))
    matrix.grad, vector.grad = torch.randn(3, 2, 2), torch.randn(3)
    before = vector.grad.clone()
    centralize_gradients([matrix, vector])
    torch.testing.assert_close(matrix.grad.mean(dim=(1, 2)), torch.zeros(3))
    assert torch.equal(vector.grad, before)


def test_a_parameter_without_gradient_stays() -> None:
    still, moving = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = Ranger([still, moving], lr=0.1)
    for _ in range(7):
        moving.grad = torch.ones(2)
        optimizer.step()
    assert torch.equal(still, torch.ones(2))
    assert not torch.equal(moving, torch.ones(2))


@pytest.mark.parametrize("setting", [{"period": 0}, {"pull": 0.0}, {"pull": 1.5}])
def test_impossible_settings(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        Ranger([nn.Parameter(torch.ones(1))], **setting)  # type: ignore[arg-type]


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
    average = ExponentialAverage(modules={"module": module}, half_life=10.0, rampup=0.05)
    for step in range(5):
        changed(module)
        average.update(seen=8 * step, count=8)
    raw, tensors = state(module), list(module.parameters())
    try:
        with average.applied():
            assert equal(state(module), average.values["module"])
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
    averaged = average.values["module"]
    assert torch.equal(averaged["1.running_mean"], module.state_dict()["1.running_mean"])
    assert averaged["1.num_batches_tracked"] == 1


def test_impossible_half_life() -> None:
    with pytest.raises(ValueError, match="half_life"):
        ExponentialAverage(modules={}, half_life=0.0, rampup=None)
