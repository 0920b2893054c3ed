"""One iteration: micro batches, phases, clipping and the guard."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from toy_tasks import Contrast, Network, Regression, critic

from training.errors import NonFiniteError
from training.iteration import Iteration
from training.task import Phase, StepContext, StepOutput, Task


def iteration(task: Task, **changes: float) -> Iteration:
    values = {"total_steps": 10, "batch_size": 12, "seed": 0, **changes}
    optimizers = {
        name: torch.optim.SGD(list(parameters), lr=1.0)  # a step is then minus the gradient
        for name, parameters in task.parameters().items()
    }
    device = torch.device("cpu")
    return Iteration(task=task, optimizers=optimizers, stage="fit", device=device, **values)  # type: ignore[arg-type]


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
        Iteration(
            task=task,
            optimizers={},
            stage="fit",
            device=torch.device("cpu"),
            seed=0,
            total_steps=1,
            batch_size=1,
        )
