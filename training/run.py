"""A whole run: its folder, its parts, its stages in order, and its report."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from training import distributed
from training.errors import UsageError
from training.logger import Logger
from training.optim import ExponentialAverage
from training.parts import Parts
from training.run_state import RunState, describe
from training.schedules import Schedule
from training.settings import RunSettings, StageSettings, run_settings, stage_settings
from training.task import Task, derive_seed
from training.trainer import Trainer, load_finished

# Root keys that the run reads itself; every other root key describes a part.
OWN_KEYS = {"run", "seed", "device", "paths", "trainer", "optim", "stages", "report"}
STAGE_KEYS = {"task", "optim", "schedule", "trainer"}
CONSTANT = {"_target_": "training.schedules.Constant"}


def train(cfg: DictConfig) -> dict[str, Any]:
    """Runs, or continues, the configured run.

    Args:
        cfg: as ``configs/train.yaml`` composes it.

    Returns:
        ``run``: the run folder; ``stages``: the report of each stage; ``report``: what the final
            report returned.

    Raises:
        UserError: whatever the user can put right; its ``status`` is the exit status.
    """
    config: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    settings = run_settings(config["trainer"])
    stages = _checked_stages(config)
    # All of them before the first is trained: a mistake in the last one should not wait for it.
    loops = {
        name: stage_settings(config["trainer"], stage.get("trainer") or {}, stage=name)
        for name, stage in stages.items()
    }
    folder = _run_folder(config, settings)
    with distributed.session(config["device"]) as device, ExitStack() as stack:
        _configure_torch(settings)
        run_state = RunState(folder=folder)

        def prepare() -> None:
            stack.enter_context(run_state.locked())
            run_state.prepare(cfg, describe(device))

        distributed.on_main(prepare)
        logger = Logger(folder=folder, enabled=distributed.is_main(), progress=settings.progress)
        parts = Parts(
            config={key: node for key, node in config.items() if key not in OWN_KEYS},
            device=device,
            seed=config["seed"],
        )
        run = _Run(config=config, run_state=run_state, parts=parts, logger=logger, device=device)
        reports = {name: run.stage(name, stage, loops[name]) for name, stage in stages.items()}
        return {"run": str(folder), "stages": reports, "report": run.report()}


class _Run:
    """What the stages of a run share."""

    def __init__(
        self,
        *,
        config: Mapping[str, Any],
        run_state: RunState,
        parts: Parts,
        logger: Logger,
        device: torch.device,
    ) -> None:
        self.config = config
        self.run_state = run_state
        self.parts = parts
        self.logger = logger
        self.device = device

    def stage(
        self, name: str, stage: Mapping[str, Any], settings: StageSettings
    ) -> Mapping[str, Any]:
        """Trains one stage, or loads its weights where it is finished; returns its report."""
        task = self._task(name, stage)
        ema = ExponentialAverage(
            modules=task.averaged(), half_life=settings.ema.half_life, rampup=settings.ema.rampup
        )
        state = self.run_state.stage(name, keep_last=settings.keep_last)
        record = state.finished()
        if record is not None:
            load_finished(task, ema=ema, path=state.folder / record["weights"])
            self.logger.line(
                f"{name}: finished before, loaded from {state.folder / record['weights']}"
            )
            done: Mapping[str, Any] = record["report"]
            return done
        loop = settings.loop()
        optimizers = self._optimizers(name, stage, task)
        schedules = self._schedules(name, stage, task, optimizers, total_steps=loop["steps"])
        for part in self.parts.modules():  # what this stage trains, the trainer switches on
            part.requires_grad_(False)
        try:
            trainer = Trainer(
                task=task,
                optimizers=optimizers,
                schedules=schedules,
                ema=ema,
                logger=self.logger,
                state=state,
                device=self.device,
                seed=derive_seed(self.config["seed"], name),
                **loop,
            )
        except ValueError as error:
            raise UsageError(f"stages.{name}: {error}") from error
        return trainer.fit()

    def report(self) -> Any:
        """Builds and runs the final report, in rank 0 alone."""
        node = self.config.get("report")
        if not node:
            return None
        folder = self.run_state.folder
        return distributed.on_main(lambda: self.parts.build(node, where="report").write(folder))

    def _task(self, name: str, stage: Mapping[str, Any]) -> Task:
        task = self.parts.build(stage["task"], where=f"stages.{name}.task")
        if not isinstance(task, Task):
            kind = type(task).__name__
            raise UsageError(f"stages.{name}.task is a {kind}, expected a training.task.Task")
        task.prepare()
        modules = task.modules()
        for module in modules.values():
            module.to(self.device)
        distributed.broadcast_modules(modules.values())
        return task

    def _optimizers(
        self, name: str, stage: Mapping[str, Any], task: Task
    ) -> dict[str, torch.optim.Optimizer]:
        nodes = _by_optimizer(
            stage.get("optim"), task, self.config.get("optim"), f"stages.{name}.optim"
        )
        return {
            key: self.parts.build(node, where=f"stages.{name}.optim.{key}", params=list(parameters))
            for (key, parameters), node in zip(
                task.parameters().items(), nodes.values(), strict=True
            )
        }

    def _schedules(
        self,
        name: str,
        stage: Mapping[str, Any],
        task: Task,
        optimizers: Mapping[str, torch.optim.Optimizer],
        *,
        total_steps: int,
    ) -> dict[str, Schedule]:
        where = f"stages.{name}.schedule"
        nodes = _by_optimizer(stage.get("schedule"), task, CONSTANT, where)
        schedules: dict[str, Schedule] = {
            key: self.parts.build(
                node, where=f"{where}.{key}", optimizer=optimizers[key], total_steps=total_steps
            )
            for key, node in nodes.items()
        }
        for key, schedule in schedules.items():
            if schedule.needs_validation and task.monitor is None:
                raise UsageError(
                    f"{where}.{key}: {type(schedule).__name__} needs a task with a monitored value"
                )
        return schedules


def _checked_stages(config: Mapping[str, Any]) -> dict[str, Any]:
    """The stages, each a mapping with a task.

    Raises:
        UsageError: there are none, or one is malformed.
    """
    if "experiment" in config:  # Hydra takes +experiment=NAME for a new key where there are none
        raise UsageError(f"there is no experiment {config['experiment']!r}; there are none")
    stages = config.get("stages")
    if not stages:
        raise UsageError(
            "the configuration has no stages, so there is nothing to train: "
            "+experiment=NAME adds them"
        )
    for name, stage in stages.items():
        if not isinstance(stage, Mapping) or not isinstance(stage.get("task"), Mapping):
            raise UsageError(f"stages.{name} has no task, expected task: {{_target_: ...}}")
        unknown = sorted(set(stage) - STAGE_KEYS)
        if unknown:
            raise UsageError(
                f"stages.{name} has no key {', '.join(unknown)}; "
                f"there are {', '.join(sorted(STAGE_KEYS))}"
            )
    return dict(stages)


def _run_folder(config: Mapping[str, Any], settings: RunSettings) -> Path:
    name = f"{config['run']}{settings.suffix or ''}"
    if not config["run"] or Path(name).name != name:
        raise UsageError(
            f"run is {config['run']!r}, expected a plain folder name such as run=portraits"
        )
    return Path(config["paths"]["runs"]) / name


def _by_optimizer(
    section: Mapping[str, Any] | None, task: Task, fallback: Any, where: str
) -> dict[str, Any]:
    """One node for each optimizer of the task.

    Args:
        section: a single node for all, or nodes by name with "default" for the rest; None: the
            fallback. A node without a target changes single keys of the fallback.
        task: whose optimizers they are.
        fallback: the node of whatever the section does not name.
        where: the section's place, for messages.
    """
    names = list(task.parameters())
    section = section or {}
    if "_target_" in section:
        return dict.fromkeys(names, section)
    unknown = sorted(set(section) - {*names, "default"})
    if unknown:
        raise UsageError(
            f"{where} names {', '.join(unknown)}, but the task's optimizers are {', '.join(names)}"
        )
    nodes = {}
    for name in names:
        node = section.get(name, section.get("default", {}))
        if "_target_" not in node:
            node = {**(fallback or {}), **node}
        if "_target_" not in node:
            raise UsageError(f"{where}.{name} is not set, expected {{_target_: ...}}")
        nodes[name] = node
    return nodes


def _configure_torch(settings: RunSettings) -> None:
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    torch.set_float32_matmul_precision("high" if settings.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = settings.tf32
