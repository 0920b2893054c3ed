"""The training loop, one for every task, device and number of processes.

Around the iterations (`training.iteration`): schedules, averages, logging, validation, sample
pictures, checkpoints, resuming and stopping.
"""

import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch

from clcae.openmp import LoadFollower
from clcae.ops.memory import release_freed_memory
from clcae.precision import Precision, bfloat16_lacking
from training import distributed
from training.errors import StoppedError, UserError
from training.iteration import Iteration
from training.logger import Logger, Means
from training.optim import ExponentialAverage
from training.schedules import Schedule
from training.state.checkpoint import DamagedError, TrainingState, load_checkpoint, load_weights
from training.state.run_state import StageState, peak_memory
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
        files: checkpoints of the stage.
        device: where the task computes.
        seed: seed of the stage.
        settings: counts and intervals, the limits of trials applied.
        follower: sets the number of threads before each step; None: it stays as it is.

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
        files: StageState,
        device: torch.device,
        seed: int,
        settings: StageSettings,
        follower: LoadFollower | None = None,
    ) -> None:
        self.task = task
        self.ema = ema
        self.logger = logger
        self.files = files
        self.device = device
        self.seed = seed
        self.settings = settings
        self.follower = follower
        self.steps = settings.steps
        self.modules = dict(task.modules())
        self.state = TrainingState(
            stage=files.name,
            modules=self.modules,
            ema=ema,
            optimizers=dict(optimizers),
            schedules=dict(schedules),
            means=Means(),
            steps=settings.steps,
        )
        self.iteration = Iteration(
            task=task,
            optimizers=optimizers,
            stage=files.name,
            device=device,
            seed=seed,
            total_steps=settings.steps,
            batch_size=settings.batch_size,
            accumulate=settings.accumulate,
            precision=self._supported(settings.precision),
            clip_norm=settings.clip_norm,
        )

    def fit(self) -> Mapping[str, Any]:
        """Trains to the end, exports, marks the stage as finished and returns the task's report.

        Raises:
            NonFiniteError: if a term or gradient is infinite or NaN.
            StoppedError: if SIGTERM or SIGINT came; the state was saved.
            UserError: if a checkpoint does not fit, or the disk is full.
        """
        self._resume()
        distributed.barrier()  # nobody replaces the checkpoint before all have read it
        first, started = self.state.step, time.monotonic()
        self.logger.start_stage(stage=self.files.name, step=first, steps=self.steps)
        try:
            self._loop()
            report = self._finish()
            self.logger.line(
                f"{self.files.name}: {self.state.step - first} steps in "
                f"{time.monotonic() - started:.0f} s, peak memory {peak_memory(self.device)}"
            )
            return report
        finally:
            self.logger.finish_stage()

    def _resume(self) -> None:
        """Continues from last.pt, or from the newest former checkpoint where it is damaged."""
        name, damage = self.files.name, None
        for path in self.files.resumable():
            try:
                self.state.resume(path)
            except DamagedError as error:
                damage = damage or error
                continue
            if damage is not None:
                self.logger.line(f"{name}: {damage}")
            self.files.last_is_good = path == self.files.last
            source = "" if self.files.last_is_good else f", from {path}"
            self.logger.line(
                f"{name}: continuing after step {self.state.step}/{self.steps}{source}"
            )
            self._check_best()
            return
        if damage is not None:
            raise UserError(
                f"{damage}, and there is no other: delete {self.files.folder} to train the stage "
                "anew"
            ) from damage

    def _check_best(self) -> None:
        """Reads best.pt, which later validations may leave as it is."""
        if self.state.best is None:
            return
        try:
            load_checkpoint(self.files.best)
        except UserError as error:
            if self.settings.finish_with == "best":
                advice = f"delete {self.files.folder} to train the stage anew"
                raise UserError(f"{error}: {advice}") from error
            self.logger.line(f"{self.files.name}: {error}; later validations may replace it")

    def _loop(self) -> None:
        state, settings = self.state, self.settings
        started, timed = time.monotonic(), state.step
        with interrupts() as received:
            while state.step < self.steps:
                terms = self._iterate()
                self.logger.progress(step=state.step, terms=terms)
                if self._due(settings.log_every):
                    now = time.monotonic()
                    seconds = (now - started) / (state.step - timed)
                    started, timed = now, state.step
                    means = state.means.take()
                    self.logger.log(
                        step=state.step, terms=means, rates=self._rates(), seconds=seconds
                    )
                if self._due(settings.validate_every):
                    self._validate()
                if self._due(settings.sample_every) and distributed.is_main():
                    self._draw_samples()
                stop = distributed.any_rank(bool(received))
                if stop or self._due(settings.save_every):
                    self._save()
                if stop:
                    raise self._stopped(received[0] if received else signal.SIGTERM)

    def _iterate(self) -> dict[str, float]:
        """Runs one iteration and what follows from it; returns its terms."""
        state, count = self.state, self.settings.batch_size
        told = self.follower.follow() if self.follower is not None else None
        if told is not None:
            self.logger.line(told)
        for schedule in state.schedules.values():
            schedule.apply(state.step)
        terms = self.iteration.run(state.step)
        self.ema.update(seen=state.step * count, count=count)
        state.means.add(terms)
        state.step += 1
        return terms

    def _draw_samples(self) -> None:
        with self._evaluating("samples"):
            image = self.task.samples()
        if image is not None:
            self.logger.picture(step=self.state.step, image=image)

    def _validate(self) -> None:
        with self._evaluating("validation"):
            values = dict(self.task.validate())
        if not values:
            return
        vector = torch.tensor(list(values.values()), dtype=torch.float64)
        values = dict(zip(values, distributed.average(vector).tolist(), strict=True))
        self.logger.validation(step=self.state.step, values=values)
        if self.task.monitor is None:
            return
        name, mode = self.task.monitor
        if name not in values:
            raise ValueError(f"the monitored value is {name!r}, expected one of {sorted(values)}")
        cost = values[name] if mode == "min" else -values[name]
        for schedule in self.state.schedules.values():
            schedule.validated(cost)
        if self.state.best is None or cost < self.state.best:
            self.state.best = cost
            distributed.on_main(lambda: self.files.save_best(self.state.weights()))

    def _save(self) -> None:
        def save() -> None:
            self.logger.flush()  # so that no checkpoint is ahead of the log
            self.files.save_last(self.state.everything())

        distributed.on_main(save)
        release_freed_memory()  # in training, which lasts for days, it would pile up

    def _finish(self) -> Mapping[str, Any]:
        weights = self.files.last
        if self.settings.finish_with == "best" and self.files.best.exists():
            weights = self.files.best
            load_weights(
                load_checkpoint(weights),
                path=weights,
                stage=self.files.name,
                modules=self.modules,
                ema=self.ema,
            )

        def export() -> Mapping[str, Any]:
            with self._evaluating("finish"):
                report = self.task.finish(self.files.run_folder)
            self.files.finish(weights=weights, report=report)
            return report

        report = distributed.on_main(export)
        self.ema.copy_to_modules()
        for module in self.modules.values():
            module.eval()
        return report

    def _stopped(self, number: int) -> StoppedError:
        message = (
            f"stopped by {signal.Signals(number).name} after step {self.state.step}/{self.steps} "
            f"of {self.files.name}: saved, the same command continues"
        )
        return StoppedError(message if distributed.is_main() else "", signal_number=number)

    @contextmanager
    def _evaluating(self, purpose: str) -> Iterator[None]:
        """Sets averaged weights, evaluation mode, no gradients, and the same seed every time."""
        for module in self.modules.values():
            module.eval()
        torch.manual_seed(derive_seed(self.seed, purpose))
        with self.ema.applied(), torch.no_grad():
            yield

    def _due(self, every: int | None) -> bool:
        step = self.state.step
        return step == self.steps or (every is not None and step % every == 0)

    def _rates(self) -> dict[str, float]:
        optimizers = self.state.optimizers.items()
        return {name: float(one.param_groups[0]["lr"]) for name, one in optimizers}

    def _supported(self, precision: Precision) -> Precision:
        """Falls back to float32 where the device has no bfloat16."""
        lacking = bfloat16_lacking(self.device) if precision == "bfloat16" else None
        if lacking is None:
            return precision
        self.logger.line(f"{self.files.name}: computing in float32, since {lacking}")
        return "float32"


def load_finished(task: Task, *, ema: ExponentialAverage, stage: str, path: Path) -> None:
    """Loads the weights with which a finished stage ended, as `Trainer.fit` leaves them.

    Raises:
        UserError: if the checkpoint is missing, damaged, or does not fit.
    """
    modules = task.modules()
    load_weights(load_checkpoint(path), path=path, stage=stage, modules=modules, ema=ema)
    ema.copy_to_modules()
    for module in modules.values():
        module.eval()


@contextmanager
def interrupts() -> Iterator[list[int]]:
    """Yields a list that receives SIGTERM or SIGINT; a second signal acts at once.

    Signals reach the main thread alone, so in any other nothing is installed.
    """
    received: list[int] = []
    former: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in former.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        restore()

    if threading.current_thread() is threading.main_thread():
        former.update({number: signal.signal(number, note) for number in SIGNALS})
    try:
        yield received
    finally:
        restore()
