"""Small tasks with everything that makes resuming hard: normalisation, dropout, two optimizers,
averages."""

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from clcae.nn.gather import gather_rows
from training.task import Phase, StepContext, StepOutput, Task


class Network(nn.Module):
    """Two layers with normalisation and dropout between them."""

    def __init__(self, *, width: int = 8, normalize: bool = True, dropout: float = 0.2) -> None:
        super().__init__()
        norm: nn.Module = nn.BatchNorm1d(width) if normalize else nn.LayerNorm(width)
        self.layers = nn.Sequential(
            nn.Linear(4, width), norm, nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 3)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        predicted: Tensor = self.layers(inputs)
        return predicted


def target(inputs: Tensor) -> Tensor:
    """What the networks learn, [N, 4] -> [N, 3]."""
    return torch.stack([inputs.sum(1), inputs[:, 0] * inputs[:, 1], inputs[:, 2].abs()], dim=1)


class Regression(Task):
    """One network, one optimizer.

    Args:
        network: what is trained.
        delay: seconds that a step takes at least, so that it can be interrupted.
        poison: step whose term "fit" is NaN.
        average: whether a moving average is kept.
        drift: added to the validation value each time, so that it gets worse.
    """

    monitor = ("error", "min")

    def __init__(
        self,
        *,
        network: Network,
        delay: float = 0.0,
        poison: int | None = None,
        average: bool = True,
        drift: float = 0.0,
    ) -> None:
        self.network = network
        self.delay = delay
        self.poison = poison
        self.average = average
        self.drift = drift
        self.validations = 0

    def parameters(self) -> Mapping[str, Iterable[nn.Parameter]]:
        return {"network": self.network.parameters()}

    def modules(self) -> Mapping[str, nn.Module]:
        return {"network": self.network}

    def averaged(self) -> Mapping[str, nn.Module]:
        return self.modules() if self.average else {}

    def load_batch(self, context: StepContext) -> Tensor:
        time.sleep(self.delay)
        inputs = torch.randn(context.batch_size, 4, generator=context.generator("inputs"))
        return inputs[context.rows]

    def loss(self, phase: Phase, batch: Tensor, context: StepContext) -> StepOutput:
        fit = functional.mse_loss(self.network(batch), target(batch))
        if self.poison == context.step:
            fit = fit * float("nan")
        size = sum(parameter.square().mean() for parameter in self.network.parameters())
        assert isinstance(size, Tensor)
        return StepOutput(loss=fit + 0.01 * size, terms={"fit": fit, "size": size})

    def validate(self) -> Mapping[str, float]:
        inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(9))
        error = functional.mse_loss(self.network(inputs), target(inputs)).item()
        self.validations += 1
        return {"error": error + self.drift * self.validations}

    def samples(self) -> Tensor | None:
        return torch.linspace(-1, 1, 3 * 8 * 8).view(3, 8, 8)

    def finish(self, folder: Path) -> Mapping[str, Any]:
        state = {key: value.clone() for key, value in self.network.state_dict().items()}
        torch.save(state, folder / "network.pt")
        return dict(self.validate())


class Contrast(Task):
    """Two networks with an optimizer each, and a loss over the rows of all processes."""

    def __init__(self, *, network: Network, critic: nn.Module) -> None:
        self.network = network
        self.critic = critic

    def parameters(self) -> Mapping[str, Iterable[nn.Parameter]]:
        return {"network": self.network.parameters(), "critic": self.critic.parameters()}

    def modules(self) -> Mapping[str, nn.Module]:
        return {"network": self.network, "critic": self.critic}

    def phases(self, step: int) -> list[Phase]:
        lazy = [Phase("penalty", "critic")] if step % 2 == 0 else []
        return [Phase("critic", "critic"), *lazy, Phase("network", "network")]

    def load_batch(self, context: StepContext) -> Tensor:
        inputs = torch.randn(context.batch_size, 4, generator=context.generator("inputs"))
        return inputs[context.rows]

    def loss(self, phase: Phase, batch: Tensor, context: StepContext) -> StepOutput:
        if phase.name == "penalty":
            real = target(batch).requires_grad_(True)
            slope = torch.autograd.grad(self.critic(real).sum(), real, create_graph=True)[0]
            penalty = slope.square().sum(1).mean()
            return StepOutput(loss=penalty, terms={"penalty": penalty})
        fake = self.network(batch)
        if phase.name == "critic":
            loss = functional.softplus(self.critic(fake.detach())).mean()
            loss = loss + functional.softplus(-self.critic(target(batch))).mean()
            return StepOutput(loss=loss, terms={})
        everyone, goals = gather_rows(fake), gather_rows(target(batch))
        logits = -torch.cdist(everyone, goals)
        match = functional.cross_entropy(logits, torch.arange(len(logits)))
        fool = functional.softplus(-self.critic(fake)).mean()
        return StepOutput(loss=match + 0.1 * fool, terms={"match": match, "fool": fool})


def critic() -> nn.Module:
    """A small network [N, 3] -> [N, 1]."""
    return nn.Sequential(nn.Linear(3, 8), nn.Softplus(), nn.Linear(8, 1))


class Report:
    """A final report that is given the trained network."""

    def __init__(self, *, network: Network) -> None:
        self.network = network

    def write(self, folder: Path) -> dict[str, float]:
        norm = sum(parameter.norm().item() for parameter in self.network.parameters())
        (folder / "norm.json").write_text(json.dumps(norm))
        return {"norm": norm}


NUMBER = 3


class Trunk(nn.Module):
    built = 0

    def __init__(self, *, width: int = 2) -> None:
        super().__init__()
        Trunk.built += 1
        self.layer = nn.Linear(width, width)


class Head(nn.Module):
    def __init__(self, *, trunk: Trunk, loss: Any = None) -> None:
        super().__init__()
        self.trunk = trunk
        self.loss = loss


def optional(*, trunk: Any = None) -> Any:
    return trunk


class Hen:
    def __init__(self, *, egg: Any) -> None:
        self.egg = egg


class Egg:
    def __init__(self, *, hen: Any) -> None:
        self.hen = hen
