"""One iteration: its context, micro batches, phases, clipping and the guard."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy_tasks import Contrast, Network, Regression, critic

from training.errors import NonFiniteError
from training.iteration import Iteration
from training.task import Phase, StepContext, StepOutput, Task


def iteration(task: Task, **changes: Any) -> Iteration:
    values: dict[str, Any] = {
        **{"total_steps": 10, "batch_size": 12, "seed": 0, "accumulate": 1},
        **{"precision": "float32", "clip_norm": None},
        **changes,
    }
    optimizers = values.pop("optimizers", None) or {
        name: torch.optim.SGD(list(parameters), lr=1.0)  # a step is then minus the gradient
        for name, parameters in task.parameters().items()
    }
    device = torch.device("cpu")
    return Iteration(task=task, optimizers=optimizers, stage="fit", device=device, **values)


def network(*, normalize: bool = False, dropout: float = 0.0) -> Network:
    torch.manual_seed(0)
    return Network(normalize=normalize, dropout=dropout)


def vector(module: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(module.parameters()).detach().clone()


@pytest.mark.parametrize("accumulate", [2, 3, 12])
def test_accumulation_equals_the_whole_batch(accumulate: int) -> None:
    whole, parts = network(), network()
    one = iteration(Regression(network=whole)).run(0)
    other = iteration(Regression(network=parts), accumulate=accumulate).run(0)
    torch.testing.assert_close(vector(whole), vector(parts), rtol=1e-5, atol=1e-6)
    assert one == pytest.approx(other, rel=1e-5)


def test_a_phase_trains_only_its_own_parameters() -> None:
    class Watching(Contrast):
        def loss(self, phase: Phase, batch: Tensor, context: StepContext) -> StepOutput:
            wanted = {name: p.requires_grad for name, p in self.critic.named_parameters()}
            others = {name: p.requires_grad for name, p in self.network.named_parameters()}
            assert all(on == (phase.optimizer == "critic") for on in wanted.values())
            assert all(on == (phase.optimizer == "network") for on in others.values())
            assert self.network.training
            return super().loss(phase, batch, context)

    torch.manual_seed(0)
    task = Watching(network=network(), critic=critic())
    stepper = iteration(task)
    assert {name.split("/")[0] for name in stepper.run(0)} == {"critic", "penalty", "network"}
    assert {name.split("/")[0] for name in stepper.run(1)} == {"critic", "network"}
    flags = [p.requires_grad for module in task.modules().values() for p in module.parameters()]
    assert not any(flags)


def test_dropout_repeats_without_stored_state() -> None:
    def run(disturb: Callable[[], object]) -> Tensor:
        module = network(dropout=0.5)
        stepper = iteration(Regression(network=module))
        for step in range(3):
            disturb()
            stepper.run(step)
        return vector(module)

    assert torch.equal(run(lambda: None), run(lambda: torch.rand(7)))


def test_clipping_bounds_the_step() -> None:
    module = network()
    before = vector(module)
    terms = iteration(Regression(network=module), clip_norm=0.01).run(0)
    assert terms["network/gradient_norm"] > 0.01
    assert (vector(module) - before).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_the_guard_names_the_term_and_leaves_the_parameters() -> None:
    module = network()
    stepper = iteration(Regression(network=module, poison=2))
    stepper.run(0)
    stepper.run(1)
    before = vector(module)
    with pytest.raises(NonFiniteError, match=r"stage fit, step 2, phase network: .*'fit' is nan"):
        stepper.run(2)
    assert torch.equal(vector(module), before)


def test_the_guard_names_the_parameter_where_the_loss_is_finite() -> None:
    class Steep(Regression):
        def loss(self, phase: Phase, batch: Tensor, context: StepContext) -> StepOutput:
            first = next(iter(self.network.parameters()))
            return StepOutput(loss=(first * 0).sqrt().sum(), terms={})  # an infinite slope at zero

    with pytest.raises(NonFiniteError, match=r"gradient of network\.layers\.0\.weight"):
        iteration(Steep(network=network())).run(0)


def test_optimizers_must_be_those_of_the_task() -> None:
    task = Regression(network=network())
    with pytest.raises(ValueError, match="optimizers are"):
        iteration(task, optimizers={"other": torch.optim.SGD(task.network.parameters(), lr=1.0)})


def context(**changes: int) -> StepContext:
    values = {
        "step": 5,
        "micro": 0,
        "num_micro": 3,
        "rank": 0,
        "world_size": 2,
        "batch_size": 24,
        "total_steps": 10,
        "seed": 1,
    }
    return StepContext(**{**values, **changes})


def test_rows_divide_the_batch_without_overlap() -> None:
    parts = [context(rank=rank, micro=micro) for rank in range(2) for micro in range(3)]
    rows = sorted(row for part in parts for row in range(24)[part.rows])
    samples = sorted(sample for part in parts for sample in part.samples)
    assert rows == list(range(24))
    assert samples == list(range(5 * 24, 6 * 24))


def test_a_stream_is_the_same_everywhere_and_new_in_each_step() -> None:
    def draw(stream: str = "z", **changes: int) -> list[float]:
        generator = context(**changes).generator(stream)
        drawn: list[float] = torch.randn(4, generator=generator).tolist()
        return drawn

    assert draw() == draw(rank=1) == draw(micro=2) == draw(num_micro=1, world_size=1)
    others = [draw("other"), draw(step=6), draw(seed=2)]
    assert draw() not in others


def test_streams_are_the_same_in_every_version() -> None:
    # What a run draws must not change under it: the value was noted when the formula was fixed.
    assert context().generator("z").initial_seed() == 1073152227567045446


def test_progress() -> None:
    assert [context(step=step).progress for step in (0, 5)] == [0.0, 0.5]


@pytest.mark.parametrize("size", [0, 4, 25])
def test_a_batch_that_does_not_divide(size: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size is {size}, expected a multiple of 6"):
        context(batch_size=size)
