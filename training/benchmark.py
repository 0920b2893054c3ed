"""A benchmark: methods trained with several seeds or loaded, judged alike, in one table.

It is a sequence of the commands that one would type, each in a process of its own: train.py for
every run that is not finished, scripts/evaluate.py for every run and list of images, and
scripts/tables.py. Each of them goes on where it was stopped, and so does the benchmark.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from clcae.data.sources import ImageSource
from clcae.images import labelled_grid, read_image, write_png
from training.commands import Command, finish, override
from training.environment import describe
from training.errors import UsageError
from training.parts import Parts
from training.run_state import RunState, differing_keys

ROOT = Path(__file__).resolve().parents[1]
KEYS = {"seeds", "num_people", "metrics", "lists", "table", "methods"}
OWN = ("experiment", "benchmark", "seed", "run", "report")  # of the benchmark, not its trainings
SHOWN = 8  # pictures of the grid


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A method of the benchmark: trained, loaded, or built around the generator.

    Args:
        name: What rows call it.
        train: Arguments of train.py; None where nothing is trained.
        run: Its run folder, with {seed}.
        file: What the run leaves there: the method's file.
        source: A file or a shipped name, in place of a run.
        build: A class and its settings, in place of a file.
        outputs: W, W+, F: those that are judged; None is all it has.
        evaluate: Further arguments of scripts/evaluate.py.

    Raises:
        UsageError: It is to come from several places, or from none.
    """

    name: str
    train: Sequence[str] | None = None
    run: str | None = None
    file: str | None = None
    source: str | None = None
    build: Mapping[str, Any] | None = None
    outputs: Sequence[str] | None = None
    evaluate: Sequence[str] = ()

    def __post_init__(self) -> None:
        given = [key for key in ("train", "source", "build") if getattr(self, key) is not None]
        if len(given) != 1:
            has = " and ".join(given) or "none"
            raise UsageError(
                f"benchmark.methods.{self.name} has {has}: expected one of train, source, build"
            )
        if self.train is not None and not (self.file and "{seed}" in (self.run or "")):
            raise UsageError(
                f"benchmark.methods.{self.name} is trained: expected file and a run with {{seed}}"
            )


class Benchmark:
    """The commands of a benchmark, in order.

    Args:
        config: The whole configuration, resolved.
        folder: Where its results lie.
        overrides: Further arguments of every training.

    Raises:
        UsageError: The section is malformed.
    """

    def __init__(
        self, *, config: Mapping[str, Any], folder: Path, overrides: Sequence[str]
    ) -> None:
        section = config["benchmark"]
        if not isinstance(section, Mapping) or set(section) != KEYS:
            raise UsageError(f"benchmark has other keys than {', '.join(sorted(KEYS))}")
        for key, kind in (("seeds", list), ("methods", dict), ("lists", dict)):
            if not isinstance(section[key], kind) or not section[key]:
                raise UsageError(f"benchmark.{key} is {section[key]!r}: nothing to compare")
        self.config, self.section = config, section
        self.folder, self.overrides = folder, list(overrides)
        self.results = folder / "results.jsonl"
        self.contestants = [_contestant(*entry) for entry in section["methods"].items()]

    def run(self) -> Path:
        """Runs what is not done; returns the file of the table.

        Raises:
            UserError: A command failed, or a signal came, and the command at work has stopped.
        """
        work, tables = [*self.trainings(), *self.evaluations()], self.tables()
        count = len(work) + len(tables)
        for number, step in enumerate(work, start=1):
            if step.run is not None and _is_finished(step):
                _say(f"[{number}/{count}] {step.label}: trained before, in {step.run.parent}")
            else:
                finish(step, f"[{number}/{count}]")
        self._draw()
        for number, step in enumerate(tables, start=len(work) + 1):
            finish(step, f"[{number}/{count}]")
        table = self.folder / "table.md"
        _say(f"\n{table.read_text()}\n{table}, table.html beside it")
        return table

    def trainings(self) -> list[Command]:
        """A training for every seed of what is trained."""
        suffix = self.config["trainer"]["suffix"]
        commands = []
        for contestant, seed in self._entries():
            if contestant.train is None:
                continue
            own = [
                f"seed={seed}",
                override("run", _run_of(contestant, seed)),
                override("trainer.suffix", suffix),
                *self._places("runs", "cache"),
            ]
            taken = {_key(one) for one in own}
            handed = [one for one in self.overrides if _key(one) not in taken]
            commands.append(
                Command(
                    label=_label(contestant, seed),
                    script=ROOT / "train.py",
                    arguments=(*contestant.train, *handed, *own),
                    run=self._file(contestant, seed),
                )
            )
        return commands

    def evaluations(self) -> list[Command]:
        """An evaluation of every run on every list of images."""
        return [
            Command(
                label=f"{_label(contestant, seed)}, {data.replace('_', ' ')}",
                script=ROOT / "scripts" / "evaluate.py",
                arguments=(
                    self._judged(contestant, seed),
                    override("method.name", contestant.name),
                    override("method.seed", seed),
                    override("outputs", contestant.outputs),
                    f"data={data}",
                    f"data.num_people={self.section['num_people']}",
                    f"protocol={self.section['metrics']}",
                    override("results", str(self.results)),
                    *self._places("cache"),
                    *self._kept(contestant, seed, data),
                    *dict.fromkeys([*further, *contestant.evaluate]),
                ),
            )
            for contestant, seed in self._entries()
            for data, further in self.section["lists"].items()
        ]

    def _kept(self, contestant: Contestant, seed: int | None, data: str) -> list[str]:
        """The first seed's pictures of the first list are kept, for the grid."""
        first = seed in (None, self.section["seeds"][0]) and data == next(
            iter(self.section["lists"])
        )
        return [override("save", str(self._pictures(contestant)))] if first else []

    def _pictures(self, contestant: Contestant) -> Path:
        return self.folder / "pictures" / contestant.name

    def _draw(self) -> None:
        """grid.png: held-out pictures, and what every method makes of them."""
        arguments = [one for one in self.evaluations()[0].arguments if _key(one) != "save"]
        config: Any = OmegaConf.to_container(_composed(arguments, "evaluate"), resolve=True)
        parts = Parts(config={}, device=torch.device("cpu"), seed=0)
        source: ImageSource = parts.build(config["data"], where="data")
        shown = range(min(SHOWN, len(source)))
        columns = {"input": source.images(shown)}
        for contestant in self.contestants:
            for space in sorted(self._pictures(contestant).glob("*"), key=_place_of):
                files = [space / f"{source.name(index)}.png" for index in shown]
                if all(file.is_file() for file in files):
                    name = f"{contestant.name} {space.name}"
                    columns[name] = torch.stack([read_image(file) for file in files])
        write_png(labelled_grid(columns, scale=2), self.folder / "grid.png")

    def tables(self) -> list[Command]:
        """The table as a page and as text."""
        return [
            Command(
                label=name,
                script=ROOT / "scripts" / "tables.py",
                arguments=(
                    self.section["table"],
                    *("--results", str(self.results)),
                    *("--out", str(self.folder / name)),
                ),
            )
            for name in ("table.html", "table.md")
        ]

    def _entries(self) -> Iterator[tuple[Contestant, int | None]]:
        """Every method with every seed, None where nothing is trained."""
        for contestant in self.contestants:
            for seed in [None] if contestant.train is None else self.section["seeds"]:
                yield contestant, seed

    def _judged(self, contestant: Contestant, seed: int | None) -> str:
        if contestant.build is not None:
            return override("method.build", contestant.build)
        trained = contestant.train is not None
        source = str(self._file(contestant, seed)) if trained else contestant.source
        return override("method.source", source)

    def _file(self, contestant: Contestant, seed: int | None) -> Path:
        """What the training of a seed leaves."""
        name = _run_of(contestant, seed) + (self.config["trainer"]["suffix"] or "")
        return Path(self.config["paths"]["runs"]) / name / str(contestant.file)

    def _places(self, *names: str) -> list[str]:
        """Where files lie and what computes, as the benchmark itself was told."""
        places = [override(f"paths.{name}", self.config["paths"][name]) for name in names]
        return [*places, override("device", self.config["device"])]


def run_benchmark(cfg: DictConfig, *, folder: Path) -> dict[str, Any]:
    """Runs, or continues, the configured benchmark.

    Args:
        cfg: As configs/train.yaml composes it, with a ``benchmark``.
        folder: Its run folder.

    Returns:
        ``run``: the folder; ``stages``: nothing; ``report``: the file of the table.

    Raises:
        UserError: Whatever the user can put right.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("a benchmark starts its own processes: start it without torchrun")
    config: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    benchmark = Benchmark(config=config, folder=folder, overrides=_handed_on())
    state = RunState(folder=folder)
    with state.locked():
        state.prepare(cfg, describe(torch.device("cpu")))
        return {"run": str(folder), "stages": {}, "report": str(benchmark.run())}


def _contestant(name: str, values: Any) -> Contestant:
    if not isinstance(values, Mapping):
        raise UsageError(f"benchmark.methods.{name} is {values!r}: expected keys")
    try:
        return Contestant(name=name, **values)
    except TypeError as error:
        raise UsageError(f"benchmark.methods.{name}: {error}") from error


def _handed_on() -> list[str]:
    """What the command line adds for the trainings."""
    given = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    return [one for one in given if _key(one).split(".")[0] not in OWN]


def _place_of(space: Path) -> int:
    """W, W+, F, then others."""
    return ("W", "W+", "F").index(space.name) if space.name in ("W", "W+", "F") else 3


def _composed(arguments: Sequence[str], name: str = "train") -> DictConfig:
    """The configuration of a command."""
    if GlobalHydra.instance().is_initialized():
        return compose(name, overrides=list(arguments))
    with initialize_config_dir(config_dir=str(ROOT / "configs"), version_base="1.3"):
        return compose(name, overrides=list(arguments))


def _is_finished(command: Command) -> bool:
    """Whether the run folder holds this very training to its end.

    A folder with another one is left to train.py, which refuses it and says why.
    """
    assert command.run is not None
    config = command.run.with_name("config.yaml")
    if not command.run.is_file() or not config.is_file():
        return False
    return not differing_keys(OmegaConf.load(config), _composed(command.arguments))


def _run_of(contestant: Contestant, seed: int | None) -> str:
    return str(contestant.run).replace("{seed}", str(seed))


def _label(contestant: Contestant, seed: int | None) -> str:
    return contestant.name if seed is None else f"{contestant.name}, seed {seed}"


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _say(text: str) -> None:
    print(text, flush=True)
