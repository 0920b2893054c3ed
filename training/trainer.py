"""The loop around the iterations: one for every task, device and number of processes.

Schedules, averages, logging, validation, pictures, checkpoints, resuming and stopping. What happens
inside an iteration is in ``training.iteration``.
"""

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal

import torch

from clcae.ops.memory import release_freed_memory
from training import distributed
from training.checkpoint import (
    capture,
    load_checkpoint,
    load_weights,
    restore,
    weights_of,
)
from training.errors import StoppedError
from training.iteration import Iteration, Precision, bfloat16_lacking
from training.logger import Logger, Means
from training.optim import ExponentialAverage
from training.run_state import StageState, peak_memory
from training.schedules import Schedule
from training.task import Task, derive_seed

SIGNALS = (signal.SIGTERM, signal.SIGINT)  # that ask a run to stop


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """Section `trainer` of one stage; configs/trainer/default.yaml explains every key."""

    steps: int
    batch_size: int
    accumulate: int
    precision: Precision
    clip_norm: float | None
    ema: Mapping[str, Any]  # half_life and rampup of ExponentialAverage
    finish_with: Literal["last", "best"]
    log_every: int
    validate_every: int | None
    sample_every: int | None
    save_every: int | None
    keep_last: int
    limit_steps: int | None
    limit_batch_size: int | None


class Trainer:
    """Runs one task from its last checkpoint, or its beginning, to its end.

    Args:
        task: the task; prepared.
        optimizers: name -> optimizer, for each name of `task.parameters()`.
        schedules: name -> schedule of the optimizer of that name.
        ema: moving average of `task.averaged()`.
        logger: receives numbers and pictures.
        state: files of the stage.
        device: where the task computes.
        seed: seed of the stage.
        settings: counts and intervals, the limits of trials applied.

    Raises:
        ValueError: if the batch cannot be divided, or the optimizers are not those of the task.
    """

    def __init__(
        self,
        *,
        task: Task,
        optimizers: Mapping[str, torch.optim.Optimizer],
        schedules: Mapping[str, Schedule],
        ema: ExponentialAverage,
        logger: Logger,
        state: StageState,
        device: torch.device,
        seed: int,
        settings: StageSettings,
    ) -> None:
        self.task = task
        self.optimizers = dict(optimizers)
        self.schedules = dict(schedules)
        self.ema = ema
        self.logger = logger
        self.state = state
        self.device = device
        self.seed = seed
        self.settings = settings
        self.steps = settings.steps
        self.means = Means()
        self.step = 0
        self.best: float | None = None
        self.modules = dict(task.modules())
        self.iteration = Iteration(
            task=task,
            optimizers=optimizers,
            stage=state.name,
            device=device,
            seed=seed,
            total_steps=settings.steps,
            batch_size=settings.batch_size,
            accumulate=settings.accumulate,
            precision=self._settled(settings.precision, device),
            clip_norm=settings.clip_norm,
        )

    def fit(self) -> Mapping[str, Any]:
        """Trains to the end, exports, and marks the stage as finished.

        Returns:
            The report of the task.

        Raises:
            NonFiniteError: a term or gradient is infinite or NaN.
            StoppedError: SIGTERM or SIGINT came; the state was saved.
            UserError: a checkpoint does not fit, or the disk is full.
        """
        self._resume()
        self.iteration.train_only(())
        first, started = self.step, time.monotonic()
        self.logger.start_stage(stage=self.state.name, step=self.step, steps=self.steps)
        try:
            self._loop()
            report = self._finish()
            self.logger.line(
                f"{self.state.name}: {self.step - first} steps in "
                f"{time.monotonic() - started:.0f} s, peak memory {peak_memory(self.device)}"
            )
            return report
        finally:
            self.logger.finish_stage()

    def _loop(self) -> None:
        started, timed = time.monotonic(), self.step
        with Interrupts() as interrupts:
            while self.step < self.steps:
                terms = self._iterate()
                self.logger.progress(step=self.step, terms=terms)
                if self._due(self.settings.log_every):
                    now = time.monotonic()
                    seconds = (now - started) / (self.step - timed)
                    started, timed = now, self.step
                    self.logger.log(
                        step=self.step,
                        terms=self.means.take(),
                        rates=self._rates(),
                        seconds=seconds,
                    )
                self._look()
                stop = distributed.any_rank(interrupts.received is not None)
                if stop or self._due(self.settings.save_every):
                    self._save()
                if stop:
                    self._raise_interrupted(interrupts.received or signal.SIGTERM)

    def _iterate(self) -> dict[str, float]:
        """One iteration and what follows from it; returns its terms."""
        for schedule in self.schedules.values():
            schedule.apply(self.step)
        terms = self.iteration.run(self.step)
        self.ema.update(seen=self.step * self.settings.batch_size, count=self.settings.batch_size)
        self.means.add(terms)
        self.step += 1
        return terms

    def _look(self) -> None:
        """Validates and draws, where it is time."""
        if self._due(self.settings.validate_every):
            self._validate()
        if self._due(self.settings.sample_every) and distributed.is_main():
            with self._evaluating("samples"):
                image = self.task.samples()
            if image is not None:
                self.logger.picture(step=self.step, image=image)

    def _validate(self) -> None:
        with self._evaluating("validation"):
            values = dict(self.task.validate())
        if not values:
            return
        vector = torch.tensor(list(values.values()), dtype=torch.float64)
        values = dict(zip(values, distributed.average(vector).tolist(), strict=True))
        self.logger.validation(step=self.step, values=values)
        if self.task.monitor is None:
            return
        name, mode = self.task.monitor
        if name not in values:
            raise ValueError(f"the monitored value is {name!r}, expected one of {sorted(values)}")
        cost = values[name] if mode == "min" else -values[name]
        for schedule in self.schedules.values():
            schedule.validated(cost)
        if self.best is None or cost < self.best:
            self.best = cost
            content = {"stage": self.state.name, "step": self.step, "best": cost}
            weights = weights_of(self.modules, self.ema)
            distributed.on_main(lambda: self.state.save_best({**content, **weights}))

    def _save(self) -> None:
        def save() -> None:
            self.logger.flush()  # so that no checkpoint is ahead of the log
            self.state.save_last(
                capture(stage=self.state.name, step=self.step, best=self.best, **self._parts())
            )

        distributed.on_main(save)
        release_freed_memory()  # in training, which lasts for days, it would pile up

    def _resume(self) -> None:
        if self.state.last.exists():
            self.step, self.best = restore(
                load_checkpoint(self.state.last),
                path=self.state.last,
                stage=self.state.name,
                **self._parts(),
            )
            self.logger.line(f"{self.state.name}: continuing after step {self.step}/{self.steps}")
        distributed.barrier()

    def _finish(self) -> Mapping[str, Any]:
        weights = self.state.last
        if self.settings.finish_with == "best" and self.state.best.exists():
            weights = self.state.best
            content = load_checkpoint(weights)
            load_weights(content, path=weights, modules=self.modules, ema=self.ema)

        def export() -> Mapping[str, Any]:
            with self._evaluating("finish"):
                report = self.task.finish(self.state.run_folder)
            self.state.finish(weights=weights, report=report)
            return report

        report = distributed.on_main(export)
        self.ema.copy_to_modules()
        for module in self.modules.values():
            module.eval()
        return report

    def _raise_interrupted(self, number: int) -> None:
        name = signal.Signals(number).name
        message = (
            f"stopped by {name} after step {self.step}/{self.steps} of {self.state.name}: "
            "saved, the same command continues"
        )
        raise StoppedError(message if distributed.is_main() else "", signal_number=number)

    def _parts(self) -> dict[str, Any]:
        return {
            "modules": self.modules,
            "ema": self.ema,
            "optimizers": self.optimizers,
            "schedules": self.schedules,
            "means": self.means,
        }

    @contextmanager
    def _evaluating(self, purpose: str) -> Iterator[None]:
        """Averaged weights, evaluation mode, no gradients, and the same randomness every time."""
        for module in self.modules.values():
            module.eval()
        torch.manual_seed(derive_seed(self.seed, purpose))
        with self.ema.applied(), torch.no_grad():
            yield

    def _due(self, every: int | None) -> bool:
        return self.step == self.steps or (every is not None and self.step % every == 0)

    def _rates(self) -> dict[str, float]:
        return {
            name: float(optimizer.param_groups[0]["lr"])
            for name, optimizer in self.optimizers.items()
        }

    def _settled(self, precision: Precision, device: torch.device) -> Precision:
        """The precision that the device is good for."""
        lacking = bfloat16_lacking(device) if precision == "bfloat16" else None
        if lacking is None:
            return precision
        self.logger.line(f"{self.state.name}: computing in float32, since {lacking}")
        return "float32"


def load_finished(task: Task, *, ema: ExponentialAverage, path: Path) -> None:
    """Gives the modules of a finished stage the weights that it ended with.

    Args:
        task: the task of the stage.
        ema: the moving average of ``task.averaged()``.
        path: the checkpoint that the mark of completion names.

    Raises:
        UserError: the checkpoint is missing or does not fit.
    """
    modules = task.modules()
    load_weights(load_checkpoint(path), path=path, modules=modules, ema=ema)
    ema.copy_to_modules()
    for module in modules.values():
        module.eval()


class Interrupts:
    """Inside this context SIGTERM and SIGINT are noted in ``received``; a second one acts at once.

    Signals reach only the main thread, so in any other nothing is installed.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._former: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}
