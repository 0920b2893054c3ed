"""One iteration: every phase of a task on one batch, over micro batches and processes.

Gradients are averaged by `distributed.average_gradients` instead of DistributedDataParallel, whose
hooks fire once per backward: an iteration has several networks, some frozen in turn, losses that
differentiate twice, and phases that share a batch.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from clcae.nn.rows import rows_of_batch
from clcae.precision import Precision
from training import distributed
from training.errors import NonFiniteError
from training.task import Phase, StepContext, Task, derive_seed


class Iteration:
    """Runs the iterations of a stage.

    Args:
        task: the task; prepared.
        optimizers: name -> optimizer, for each name of `task.parameters()`.
        stage: name of the stage, for messages.
        device: where the task computes.
        seed: seed of the stage.
        total_steps: iterations of the stage.
        batch_size: rows of an iteration, over all processes and micro batches.
        accumulate: micro batches per iteration and process.
        precision: type of the computation inside losses; parameters are float32 throughout.
        clip_norm: bound on the gradient norm of a phase; None: no bound.

    Raises:
        ValueError: if the batch cannot be divided, or the optimizers are not those of the task.
    """

    def __init__(
        self,
        *,
        task: Task,
        optimizers: Mapping[str, torch.optim.Optimizer],
        stage: str,
        device: torch.device,
        seed: int,
        total_steps: int,
        batch_size: int,
        accumulate: int,
        precision: Precision,
        clip_norm: float | None,
    ) -> None:
        self.task = task
        self.optimizers = dict(optimizers)
        self.stage = stage
        self.device = device
        self.seed = seed
        self.total_steps = total_steps
        self.batch_size = batch_size
        self.accumulate = accumulate
        self.bfloat16 = precision == "bfloat16"
        self.clip_norm = clip_norm
        self.parameters = {name: list(group) for name, group in task.parameters().items()}
        self.modules = dict(task.modules())
        if set(self.optimizers) != set(self.parameters):
            raise ValueError(
                f"optimizers are {sorted(self.optimizers)}, expected {sorted(self.parameters)}"
            )
        self.contexts(0)  # a batch that cannot be divided is better known now

    def run(self, step: int) -> dict[str, float]:
        """Steps the optimizer of every phase; `step` iterations were done before.

        Returns:
            "PHASE/TERM" -> value, averaged over micro batches and processes; with "PHASE/loss" and
            "PHASE/gradient_norm", the latter before clipping.

        Raises:
            NonFiniteError: if a term or gradient is infinite or NaN.
        """
        for module in self.modules.values():
            module.train()
        contexts = self.contexts(step)
        batches = []
        for context in contexts:
            with self._random(context, "batch"), torch.no_grad():
                batches.append(self.task.load_batch(context))
        terms: dict[str, float] = {}
        for phase in self.task.phases(step):
            for name, value in self._phase(phase, batches, contexts).items():
                terms[f"{phase.name}/{name}"] = value
        distributed.broadcast_buffers(self.modules.values())
        return terms

    def contexts(self, step: int) -> list[StepContext]:
        """Returns the contexts of the micro batches of this process."""
        return [
            StepContext(
                step=step,
                micro=micro,
                num_micro=self.accumulate,
                rank=distributed.rank(),
                world_size=distributed.world_size(),
                batch_size=self.batch_size,
                total_steps=self.total_steps,
                seed=self.seed,
            )
            for micro in range(self.accumulate)
        ]

    def train_only(self, trained: Sequence[nn.Parameter]) -> None:
        """Switches gradients on for these parameters and off for all others of the task."""
        for parameter in itertools.chain(*self.parameters.values()):
            parameter.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)

    def _phase(
        self, phase: Phase, batches: Sequence[Any], contexts: Sequence[StepContext]
    ) -> dict[str, float]:
        """Accumulates gradients over the micro batches and steps the phase's optimizer."""
        trained = self.parameters[phase.optimizer]
        optimizer = self.optimizers[phase.optimizer]
        sums = self._backward(phase, batches, contexts)
        distributed.average_gradients(trained)
        norm = gradient_norm(trained)
        means = distributed.average(torch.stack(list(sums.values())))
        # One transfer from the device for all numbers: each would wait for it.
        *values, norm_value = torch.cat([means, norm.to(means).reshape(1)]).tolist()
        terms = dict(zip(sums, values, strict=True))
        check_finite(
            terms,
            norm=norm_value,
            parameters=trained,
            modules=self.modules,
            where=f"stage {self.stage}, step {contexts[0].step}, phase {phase.name}",
        )
        if self.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(trained, self.clip_norm, norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {**terms, "gradient_norm": norm_value}

    def _backward(
        self, phase: Phase, batches: Sequence[Any], contexts: Sequence[StepContext]
    ) -> dict[str, Tensor]:
        """Accumulates the gradients of a phase; returns its terms, averaged."""
        self.train_only(self.parameters[phase.optimizer])
        sums: dict[str, Tensor] = {}
        for batch, context in zip(batches, contexts, strict=True):
            with self._random(context, phase.name):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                    output = self.task.loss(phase, batch, context)
                (output.loss.float() / self.accumulate).backward()
            for name, value in {"loss": output.loss, **output.terms}.items():
                part = value.detach().float() / self.accumulate
                sums[name] = sums[name] + part if name in sums else part
        self.train_only(())
        return sums

    @contextmanager
    def _random(self, context: StepContext, purpose: str) -> Iterator[None]:
        """Seeds torch's global generators, so dropout and noise repeat without stored state.

        All processes and micro batches are seeded alike, and draw by row (`clcae.nn.rows`).
        """
        torch.manual_seed(derive_seed(self.seed, context.step, 0, purpose, 0))
        with rows_of_batch(context.rows, total=context.batch_size):
            yield


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Computes the Euclidean norm [] of all gradients together; not finite if one is not."""
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def check_finite(
    terms: Mapping[str, float],
    *,
    norm: float,
    parameters: Iterable[nn.Parameter],
    modules: Mapping[str, nn.Module],
    where: str,
) -> None:
    """Raises, in every process or in none, if a term or a gradient is not finite.

    Terms are averaged over the processes, and `norm` is that of the averaged gradients. `modules`
    name the parameters; `where` is stage, step and phase, for the message.

    Raises:
        NonFiniteError: with the names of the terms, or else of the parameters.
    """
    finite = all(map(math.isfinite, [*terms.values(), norm]))
    if not distributed.any_rank(not finite):
        return
    bad = [f"term {name!r} is {value}" for name, value in terms.items() if not math.isfinite(value)]
    if not bad:
        bad = [f"the gradient of {name}" for name in _bad_gradients(parameters, modules)]
        bad = [", ".join(bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")]
        bad[0] = f"{bad[0] or 'a gradient of another process'} is not finite (norm {norm})"
    raise NonFiniteError(f"{where}: {', '.join(bad)}; the step was not taken")


def _bad_gradients(
    parameters: Iterable[nn.Parameter], modules: Mapping[str, nn.Module]
) -> list[str]:
    names = {
        id(parameter): f"{module_name}.{name}"
        for module_name, module in modules.items()
        for name, parameter in module.named_parameters()
    }
    return [
        names.get(id(parameter), "a parameter outside the task's modules")
        for parameter in parameters
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all())
    ]
