"""The interface between the trainer and what is learnt.

A task is one stage of a run: it loads batches, computes losses, validates, draws samples, exports.
The loop, its order and all checkpoints are the trainer's.
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
    """One backward pass and optimizer step of an iteration."""

    name: str  # in logs, such as "encoder" or "r1"
    optimizer: str  # that steps, a key of `Task.parameters`


@dataclass(frozen=True)
class StepOutput:
    """Loss and terms of a phase on one micro batch."""

    loss: Tensor  # [], a mean over the rows of the micro batch
    terms: Mapping[str, Tensor]  # name -> [], logged and checked for infinities and NaN


@dataclass(frozen=True)
class StepContext:
    """Position of a micro batch in the run; all randomness derives from it, so runs resume exactly.

    Raises:
        ValueError: if the batch does not divide into equal micro batches.
    """

    step: int  # iterations done before this one
    micro: int  # index of the micro batch within the step on this rank
    num_micro: int  # micro batches per step and rank
    rank: int
    world_size: int
    batch_size: int  # rows of the whole step, over all ranks and micro batches
    total_steps: int  # of the stage
    seed: int  # of the stage

    def __post_init__(self) -> None:
        shares = self.world_size * self.num_micro
        if self.batch_size < 1 or self.batch_size % shares != 0:
            raise ValueError(
                f"batch_size is {self.batch_size}, expected a multiple of {shares} "
                f"({self.world_size} processes x {self.num_micro} micro batches)"
            )

    def generator(self, stream: str) -> torch.Generator:
        """Returns a CPU generator for one purpose in this step, the same on every rank.

        A task draws for the global batch and takes its `rows`, so that results do not depend on how
        the batch is divided.

        `stream` is the purpose, such as "z" or "flip"; other streams are independent.
        """
        return torch.Generator().manual_seed(derive_seed(self.seed, self.step, stream))

    def normal(self, stream: str, width: int) -> Tensor:
        """Draws standard normal numbers [N, width] for these rows, on the CPU."""
        whole = torch.randn(self.batch_size, width, generator=self.generator(stream))
        return whole[self.rows]

    @property
    def rows(self) -> slice:
        """Returns the rows of the global batch in this micro batch."""
        count = self.batch_size // (self.world_size * self.num_micro)
        start = (self.micro * self.world_size + self.rank) * count
        return slice(start, start + count)

    @property
    def samples(self) -> range:
        """Returns the numbers of these rows in the endless sequence of samples of the stage."""
        rows = self.rows
        offset = self.step * self.batch_size
        return range(offset + rows.start, offset + rows.stop)

    @property
    def progress(self) -> float:
        """Returns the part of the stage that is done, in [0, 1)."""
        return self.step / self.total_steps


class Task(ABC):
    """One stage of training; a subclass takes built parts, keyword-only.

    The trainer switches `requires_grad` and the train mode. A task does neither, and does not
    select its parameters by `requires_grad`.
    """

    # The validation value by which the best weights are chosen, and whether lower or higher wins.
    monitor: tuple[str, Literal["min", "max"]] | None = None

    @abstractmethod
    def modules(self) -> Mapping[str, nn.Module]:
        """Returns name -> module of all that is trained, for checkpoints; no frozen ones."""

    def parameters(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """Returns optimizer name -> its parameters; by default one optimizer per module."""
        return {name: module.parameters() for name, module in self.modules().items()}

    def prepare(self) -> None:  # noqa: B027  (optional)
        """Sets start weights and computed buffers, before the stage is trained or loaded.

        Called once in every process, also where a checkpoint replaces the weights afterwards.
        """

    def averaged(self) -> Mapping[str, nn.Module]:
        """Returns those of `modules` whose moving average is kept, validated and exported."""
        return {}

    def phases(self, step: int) -> Sequence[Phase]:
        """Returns the phases of an iteration, in order; by default one per optimizer."""
        return [Phase(name=name, optimizer=name) for name in self.parameters()]

    @abstractmethod
    def load_batch(self, context: StepContext) -> Any:
        """Loads the rows of `context` onto the task's device, without gradients.

        All phases of a step share the batch.
        """

    @abstractmethod
    def loss(self, phase: Phase, batch: Any, context: StepContext) -> StepOutput:
        """Computes the loss of one phase on one micro batch; leaves the batch unchanged.

        Only the parameters of the phase's optimizer require gradients meanwhile.
        """

    def validate(self) -> Mapping[str, float]:
        """Computes validation values, on every rank, with averaged weights and no gradients.

        The trainer averages them over the ranks, so each may take the whole set or an equal share.
        """
        return {}

    def samples(self) -> Tensor | None:
        """Draws a picture [3, H, W] in [-1, 1] of the progress, or returns None.

        Called on rank 0 alone, with averaged weights and no gradients.
        """
        return None

    def finish(self, folder: Path) -> Mapping[str, Any]:
        """Exports the result into the run folder; returns a report of the stage, as JSON.

        Called on rank 0 alone, with averaged weights and no gradients; again after a killed run.
        """
        return {}


def derive_seed(*parts: int | str) -> int:
    """Hashes names and counters to a seed in [0, 2**63), the same in every process and version."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
