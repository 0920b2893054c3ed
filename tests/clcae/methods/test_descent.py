"""Adam with a row for each picture, against torch's; who has stopped stays where it stopped."""

import pytest
import torch
from torch import Tensor

from clcae.methods.optimizer.descent import Variables, descend, rate_factor

TARGETS = torch.tensor([[1.0, -2.0], [0.5, 3.0], [-4.0, 0.0]])


def bowl(variables: Variables, pictures: Tensor, step: int) -> Tensor:
    """A loss whose curvature differs from picture to picture."""
    curvature = torch.tensor([1.0, 10.0, 0.1])[pictures]
    return curvature * (variables["a"] - TARGETS[pictures]).square().sum(dim=1) + variables[
        "b"
    ].square().sum(dim=(1, 2))


def starts() -> dict[str, Tensor]:
    return {"a": torch.zeros(3, 2), "b": torch.ones(3, 1, 2)}


def test_it_is_torchs_adam() -> None:
    given = starts()
    found = descend(given, bowl, steps=40, rates={"a": 0.1, "b": 0.03})
    assert torch.equal(given["a"], torch.zeros(3, 2))
    expected = {name: value.clone().requires_grad_() for name, value in starts().items()}
    groups = [{"params": [expected["a"]], "lr": 0.1}, {"params": [expected["b"]], "lr": 0.03}]
    optimizer = torch.optim.Adam(groups)
    for step in range(40):
        for group, rate in zip(optimizer.param_groups, (0.1, 0.03), strict=True):
            group["lr"] = rate * rate_factor("ramp", step / 40)
        optimizer.zero_grad()
        bowl(expected, torch.arange(3), step).sum().backward()
        optimizer.step()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value.detach(), rtol=1e-5, atol=1e-6)


def test_the_ramp_is_that_of_the_projector() -> None:
    factors = [rate_factor("ramp", done) for done in (0.0, 0.025, 0.05, 0.75, 0.875, 1.0)]
    assert factors == pytest.approx([1e-3, 0.501, 1.0, 1.0, 0.5, 0.0])
    assert {rate_factor("constant", done) for done in (0.0, 0.5, 0.99)} == {1.0}


def test_a_picture_that_has_stopped_changes_nothing_for_the_others() -> None:
    seen: list[list[int]] = []

    def watched(variables: Variables, pictures: Tensor, step: int) -> Tensor:
        seen.append(pictures.tolist())
        return bowl(variables, pictures, step)

    settings = {"steps": 400, "rates": {"a": 0.1, "b": 0.1}, "schedule": "constant"}
    found = descend(starts(), watched, **settings, patience=10, least_gain=0.05)  # type: ignore[arg-type]
    assert seen[0] == [0, 1, 2] and len(seen[-1]) < 3 and len(seen) < 400
    for row in range(3):
        one = {name: value[row : row + 1] for name, value in starts().items()}

        def alone(variables: Variables, pictures: Tensor, step: int, row: int = row) -> Tensor:
            return bowl(variables, pictures + row, step)

        expected = descend(one, alone, **settings, patience=10, least_gain=0.05)  # type: ignore[arg-type]
        for name, value in expected.items():
            torch.testing.assert_close(found[name][row], value[0])


def test_variables_are_changed_after_every_step_and_steps_are_told() -> None:
    told: list[int] = []

    def positive(variables: Variables) -> None:
        variables["a"].clamp_(min=0.0)

    found = descend(
        starts(),
        bowl,
        steps=7,
        rates={"a": 0.1, "b": 0.1},
        project=positive,
        on_step=lambda: told.append(1),
    )
    assert len(told) == 7 and float(found["a"].min()) == 0.0
    assert torch.equal(
        descend(starts(), bowl, steps=0, rates={"a": 1.0, "b": 1.0})["a"], starts()["a"]
    )
