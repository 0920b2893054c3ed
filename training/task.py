"""What the trainer asks of a task: parameters, batches, losses, and what it shows and exports.

A task is one stage of a run. It holds the parts it was given, knows how to draw a batch and how to
turn it into losses, and leaves the loop, its order and everything about files to the trainer.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Phase:
    """One backward and step of an iteration.

    Args:
        name: what the phase is called in logs, such as "encoder" or "discriminator_r1".
        optimizer: the optimizer it steps, a key of ``Task.parameters``.
    """

    name: str
    optimizer: str


@dataclass(frozen=True)
class StepOutput:
    """What a phase makes of one micro batch.

    Args:
        loss: scalar that is differentiated, a mean over the rows of the micro batch.
        terms: named scalars for the log and for the guard against infinities and NaN.
    """

    loss: Tensor  # []
    terms: Mapping[str, Tensor]  # name -> []


@dataclass(frozen=True)
class StepContext:
    """Where the run is. Everything random derives from it, so that a resumed run repeats exactly.

    Args:
        step: iterations done before this one.
        micro: index of the micro batch within the step on this rank.
        num_micro: micro batches per step and rank.
        rank: index of this process.
        world_size: number of processes.
        batch_size: rows of the whole step, over all ranks and micro batches.
        total_steps: iterations of the stage.
        seed: the seed of the stage.

    Raises:
        ValueError: the batch does not divide into equal micro batches.
    """

    step: int
    micro: int
    num_micro: int
    rank: int
    world_size: int
    batch_size: int
    total_steps: int
    seed: int

    def __post_init__(self) -> None:
        shares = self.world_size * self.num_micro
        if self.batch_size < 1 or self.batch_size % shares != 0:
            raise ValueError(
                f"batch_size is {self.batch_size}, expected a multiple of {shares} "
                f"({self.world_size} processes x {self.num_micro} micro batches)"
            )

    def generator(self, stream: str) -> torch.Generator:
        """A CPU generator for one purpose in this step, the same on every rank and micro batch.

        A task draws for the global batch and takes its ``rows``, so that a run does not depend on
        how the batch is divided.

        Args:
            stream: the purpose, such as "z" or "flip"; other streams are independent.
        """
        return torch.Generator().manual_seed(derive_seed(self.seed, self.step, stream))

    def normal(self, stream: str, width: int) -> Tensor:
        """Draws standard normal numbers [N, width] for these rows, on the CPU."""
        whole = torch.randn(self.batch_size, width, generator=self.generator(stream))
        return whole[self.rows]

    @property
    def rows(self) -> slice:
        """The rows of the global batch that this rank and micro batch owns."""
        count = self.batch_size // (self.world_size * self.num_micro)
        start = (self.micro * self.world_size + self.rank) * count
        return slice(start, start + count)

    @property
    def samples(self) -> range:
        """The numbers of these rows in the endless sequence of samples of the stage."""
        rows = self.rows
        offset = self.step * self.batch_size
        return range(offset + rows.start, offset + rows.stop)

    @property
    def progress(self) -> float:
        """The part of the stage that is done, in [0, 1)."""
        return self.step / self.total_steps


class Task(ABC):
    """One stage of training; a subclass takes built parts, keyword-only.

    The trainer switches ``requires_grad`` and the train mode of what it trains. A task does
    neither, and does not select its parameters by ``requires_grad``.
    """

    # The validation value that says which weights are best, and which way.
    monitor: tuple[str, Literal["min", "max"]] | None = None

    @abstractmethod
    def modules(self) -> Mapping[str, nn.Module]:
        """Name -> module whose state a checkpoint must hold: the trained, not the frozen ones."""

    def parameters(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """Optimizer name -> the parameters that it trains; by default one for each module."""
        return {name: module.parameters() for name, module in self.modules().items()}

    def prepare(self) -> None:  # noqa: B027  (optional)
        """Sets start weights and computed buffers, before the stage is trained or loaded.

        Called once in every process, also where a checkpoint replaces the weights afterwards.
        """

    def averaged(self) -> Mapping[str, nn.Module]:
        """The part of ``modules`` of which a moving average is kept, validated and exported."""
        return {}

    def phases(self, step: int) -> Sequence[Phase]:
        """The phases of iteration ``step``, in order; by default one for each optimizer."""
        return [Phase(name=name, optimizer=name) for name in self.parameters()]

    @abstractmethod
    def load_batch(self, context: StepContext) -> Any:
        """The rows of ``context``, on the task's device.

        Called without gradients, once for each micro batch of a step, whose phases share it.
        """

    @abstractmethod
    def loss(self, phase: Phase, batch: Any, context: StepContext) -> StepOutput:
        """The loss of one phase on one micro batch, which it leaves unchanged.

        Only the parameters of the phase's optimizer require gradients meanwhile.
        """

    def validate(self) -> Mapping[str, float]:
        """Validation values by name.

        Called on every rank, with averaged weights and without gradients. The ranks average what
        they return, so each may take the whole set, or an equal share of it.
        """
        return {}

    def samples(self) -> Tensor | None:
        """A picture of how far the task is, [3, H, W] in [-1, 1], or None.

        Called on rank 0 alone, with averaged weights and without gradients.
        """
        return None

    def finish(self, folder: Path) -> Mapping[str, Any]:
        """Writes what the stage exports into the run folder, after the last step.

        Called on rank 0 alone, with averaged weights and without gradients; again, where the run
        was killed in the meantime.

        Returns:
            A report of the stage that JSON can hold.
        """
        return {}


def derive_seed(*parts: int | str) -> int:
    """A seed that depends on nothing but its arguments: the same in every process and version.

    Args:
        parts: what the seed stands for, such as ``(7, "noise", 1200)``.

    Returns:
        An integer in [0, 2**63), as ``torch.Generator.manual_seed`` takes it.
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
