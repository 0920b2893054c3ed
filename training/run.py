"""Runs what a configuration describes: its stages in order, then its final report."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from omegaconf import DictConfig, OmegaConf

from clcae.data.sources import FileSource
from clcae.openmp import LoadFollower
from training import distributed
from training.errors import UsageError, UserError
from training.iteration import Precision
from training.logger import Logger
from training.optim import ExponentialAverage
from training.parts import Parts
from training.schedules import Schedule
from training.state.checkpoint import DamagedError
from training.state.run_state import RunState, StageState, describe
from training.task import Task, derive_seed
from training.trainer import StageSettings, Trainer, load_finished

# Root keys that the run reads itself; every other root key describes a part.
OWN_KEYS = {"run", "seed", "device", "paths", "trainer", "optim", "stages", "report"}
PICTURES = {"data", "validation", "test"}  # parts that may be folders of pictures
# Keys of the section `trainer`: of the process, and of a stage.
PROCESS_KEYS = {"suffix", "threads", "tf32", "progress", "debug"}
LOOP_KEYS = {entry.name for entry in dataclasses.fields(StageSettings)}
LIMITS = {"limit_steps", "limit_batch_size"}
OPTIONAL_COUNTS = LIMITS | {"validate_every", "sample_every", "save_every"}
COUNTS = OPTIONAL_COUNTS | {"steps", "batch_size", "accumulate", "log_every", "keep_last"}
STAGE_KEYS = {"task", "optim", "schedule", "trainer"}
CONSTANT = {"_target_": "training.schedules.Constant"}


def train(cfg: DictConfig) -> dict[str, Any]:
    """Runs, or continues, the run that configs/train.yaml composes.

    Returns:
        "run": run folder; "stages": report of each stage; "report": result of the final report.

    Raises:
        UserError: if anything is wrong that the user can put right.
    """
    config: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    stages = _checked_stages(config)
    # All before the first is trained: a mistake in the last one should not wait for it.
    loops = {
        name: stage_settings(config["trainer"], stage.get("trainer") or {}, stage=name)
        for name, stage in stages.items()
    }
    process = config["trainer"]
    if process["threads"] is not None:
        _check_count(process["threads"], "trainer.threads")
    folder = _run_folder(config)
    with distributed.session(config["device"]) as device, ExitStack() as stack:
        _configure_torch(threads=process["threads"], tf32=process["tf32"])
        follower = None
        if process["threads"] is None and device.type == "cpu":
            follower = stack.enter_context(_followed_load())
        follows = follower is not None and follower.follows
        environment = {**describe(device), "threads_follow_load": follows}
        run_state = RunState(folder=folder)

        def prepare() -> None:
            stack.enter_context(run_state.locked())
            run_state.prepare(cfg, environment)

        distributed.on_main(prepare)
        logger = Logger(folder=folder, enabled=distributed.is_main(), progress=process["progress"])
        parts = Parts(
            config={key: node for key, node in config.items() if key not in OWN_KEYS},
            device=device,
            seed=config["seed"],
        )
        run = _Run(
            config=config,
            run_state=run_state,
            parts=parts,
            logger=logger,
            device=device,
            follower=follower,
        )
        distributed.on_main(lambda: run.check_pictures(loops))
        reports = {name: run.stage(name, stage, loops[name]) for name, stage in stages.items()}
        return {"run": str(folder), "stages": reports, "report": run.report()}


@dataclass(frozen=True, kw_only=True)
class _Run:
    """Builds and trains the stages of a run."""

    config: Mapping[str, Any]
    run_state: RunState
    parts: Parts
    logger: Logger
    device: torch.device
    follower: LoadFollower | None

    def check_pictures(self, loops: Mapping[str, StageSettings]) -> None:
        """Looks over the picture files before the first stage: the last one would wait for it.

        Raises:
            UserError: if some cannot be read, with their count and the first of them.
        """
        stages = [self.run_state.stage(name, keep_last=1) for name in loops]
        with suppress(DamagedError):  # of a stage that is finished again
            if all(stage.finished() is not None for stage in stages):
                return
        used = set(_parts_in(self.config))
        for key in sorted(PICTURES & used & self.parts.config.keys()):
            source = self.parts[key]
            if not isinstance(source, FileSource):
                continue
            faults = list(source.faults())
            if faults:
                raise UserError(
                    f"{key}: {len(faults)} of {len(source)} pictures cannot be read: "
                    f"{faults[0][1]}{' ...' if faults[1:] else ''}; remove or replace them"
                )

    def stage(
        self, name: str, stage: Mapping[str, Any], settings: StageSettings
    ) -> Mapping[str, Any]:
        """Trains one stage, or loads its weights if it is finished; returns its report."""
        task = self._task(name, stage)
        ema = ExponentialAverage(modules=task.averaged(), **settings.ema)
        files = self.run_state.stage(name, keep_last=settings.keep_last)
        done = self._finished(name, task, ema, files)
        if done is not None:
            return done
        optimizers, schedules = self._optimizers(name, stage, task, total_steps=settings.steps)
        for part in self.parts.modules():  # the trainer switches on what this stage trains
            part.requires_grad_(False)
        try:
            trainer = Trainer(
                task=task,
                optimizers=optimizers,
                schedules=schedules,
                ema=ema,
                logger=self.logger,
                files=files,
                device=self.device,
                seed=derive_seed(self.config["seed"], name),
                settings=settings,
                follower=self.follower,
            )
        except ValueError as error:
            raise UsageError(f"stages.{name}: {error}") from error
        return trainer.fit()

    def _finished(
        self, name: str, task: Task, ema: ExponentialAverage, files: StageState
    ) -> Mapping[str, Any] | None:
        """Loads a finished stage and returns its report; None where it is to be trained.

        A stage whose files are damaged is finished again, from a former checkpoint.
        """
        weights = files.last
        try:
            record = files.finished()
            if record is None:
                return None
            weights = files.folder / record["weights"]
            load_finished(task, ema=ema, stage=name, path=weights)
        except DamagedError as error:
            if weights == files.best:
                raise UserError(
                    f"{error}: delete {files.folder} to train the stage anew"
                ) from error
            self.logger.line(f"{name}: {error}; the stage is finished again")
            return None
        self.logger.line(f"{name}: finished before, loaded from {weights}")
        report: Mapping[str, Any] = record["report"]
        return report

    def report(self) -> Any:
        """Builds and runs the final report, in rank 0 alone."""
        node, folder = self.config.get("report"), self.run_state.folder
        if not node:
            return None
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
        self, name: str, stage: Mapping[str, Any], task: Task, *, total_steps: int
    ) -> tuple[dict[str, torch.optim.Optimizer], dict[str, Schedule]]:
        """Builds an optimizer, with its schedule, for each name of `task.parameters()`."""
        where, parameters = f"stages.{name}", task.parameters()
        nodes = _by_name(stage.get("optim"), parameters, self.config["optim"], f"{where}.optim")
        decays = _by_name(stage.get("schedule"), parameters, CONSTANT, f"{where}.schedule")
        optimizers, schedules = {}, {}
        for key, group in parameters.items():
            at = f"{where}.optim.{key}"
            optimizers[key] = self.parts.build(nodes[key], where=at, params=list(group))
            at = f"{where}.schedule.{key}"
            given = {"optimizer": optimizers[key], "total_steps": total_steps}
            schedules[key] = self.parts.build(decays[key], where=at, **given)
            if schedules[key].needs_validation and task.monitor is None:
                kind = type(schedules[key]).__name__
                raise UsageError(f"{at}: {kind} needs a task with a monitored value")
        return optimizers, schedules


def _parts_in(node: Any) -> Iterator[str]:
    """Yields the names of the parts that a node refers to, at any depth."""
    if isinstance(node, Mapping):
        if "_part_" in node:
            yield node["_part_"]
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from _parts_in(value)


def _checked_stages(config: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    stages: Mapping[str, Mapping[str, Any]] = config.get("stages") or {}
    if not stages:
        raise UsageError("the configuration has no stages, so there is nothing to train")
    for name, stage in stages.items():
        if not isinstance(stage, Mapping) or not isinstance(stage.get("task"), Mapping):
            raise UsageError(f"stages.{name} has no task, expected task: {{_target_: ...}}")
        _check_keys(stage, STAGE_KEYS, where=f"stages.{name}", partial=True)
    return stages


def _run_folder(config: Mapping[str, Any]) -> Path:
    name = f"{config['run']}{config['trainer']['suffix'] or ''}"
    if not config["run"] or Path(name).name != name:
        raise UsageError(
            f"run is {config['run']!r}, expected a plain folder name such as run=portraits"
        )
    return Path(config["paths"]["runs"]) / name


def _by_name(
    section: Mapping[str, Any] | None, names: Iterable[str], fallback: Any, where: str
) -> dict[str, Any]:
    """Returns the node of each optimizer or schedule.

    `section` is one node for all, or nodes by name, "default" for the rest; a node without a target
    changes keys of `fallback`, which serves whatever is not named. `where` is its dotted key.
    """
    names, section = list(names), section or {}
    if "_target_" in section:
        return dict.fromkeys(names, section)
    unknown = ", ".join(sorted(set(section) - {*names, "default"}))
    if unknown:
        raise UsageError(
            f"{where} names {unknown}, but the task's optimizers are {', '.join(names)}"
        )
    nodes = {}
    for name in names:
        node = section.get(name, section.get("default", {}))
        nodes[name] = node if "_target_" in node else {**(fallback or {}), **node}
        if "_target_" not in nodes[name]:
            raise UsageError(f"{where}.{name} is not set, expected {{_target_: ...}}")
    return nodes


def _configure_torch(*, threads: int | None, tf32: bool) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32


@contextmanager
def _followed_load() -> Iterator[LoadFollower]:
    """Yields a follower of the load, of this thread; its number of threads is restored."""
    most = torch.get_num_threads()
    try:
        yield LoadFollower(most=most, set_threads=torch.set_num_threads)
    finally:
        torch.set_num_threads(most)


def stage_settings(
    section: Mapping[str, Any], overrides: Mapping[str, Any], *, stage: str
) -> StageSettings:
    """Reads the settings of one stage and applies the limits of trials.

    `section` is the run's `trainer`, with every key, `overrides` the stage's own.

    Raises:
        UsageError: if a key is unknown or missing, or a value is impossible.
    """
    where = f"stages.{stage}.trainer"
    _check_keys(section, LOOP_KEYS | PROCESS_KEYS, where="trainer")
    _check_keys(overrides, LOOP_KEYS, where=where, partial=True)
    if section["steps"] is not None and overrides.get("steps") is not None:
        raise UsageError(
            f"trainer.steps is {section['steps']}, but {where}.steps says otherwise: set the "
            f"latter, or trainer.limit_steps={section['steps']} for every stage"
        )
    values = {key: {**section, **overrides}[key] for key in LOOP_KEYS}
    values["ema"] = {**section["ema"], **(overrides.get("ema") or {})}
    _check_keys(values["ema"], {"half_life", "rampup"}, where=f"{where}.ema")
    for key in ("steps", "batch_size"):
        if values[key] is None:
            raise UsageError(f"{where}.{key} is not set, and neither is trainer.{key}")
    for key in COUNTS:
        if values[key] is not None or key not in OPTIONAL_COUNTS:
            _check_count(values[key], f"{where}.{key}")
    _check_choice(values["precision"], get_args(Precision), f"{where}.precision")
    _check_choice(values["finish_with"], ("last", "best"), f"{where}.finish_with")
    if values["limit_steps"] is not None:
        values["steps"] = min(values["steps"], values["limit_steps"])
    limit = values["limit_batch_size"]
    if limit is not None and limit < values["batch_size"]:
        values.update(batch_size=limit, accumulate=1)
    return StageSettings(**values)


def _check_keys(
    section: Mapping[str, Any], known: set[str], *, where: str, partial: bool = False
) -> None:
    for key in sorted(set(section) - known):
        raise UsageError(f"{where} has no key {key}; there are {', '.join(sorted(known))}")
    for key in [] if partial else sorted(known - set(section)):
        raise UsageError(f"{where} lacks {key}, which configs/trainer/default.yaml sets")


def _check_count(value: Any, where: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{where} is {value!r}, expected a whole number of at least 1")


def _check_choice(value: Any, choices: Sequence[str], where: str) -> None:
    if value not in choices:
        raise UsageError(f"{where} is {value!r}, expected one of {', '.join(choices)}")
