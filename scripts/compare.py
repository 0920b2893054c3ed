"""Trains or loads every method, evaluates all under one protocol, prints one table; see --help.

It starts the commands that one would type, one after the other: train.py for every run that is not
finished, scripts/evaluate.py for every method, seed and list of pictures, and scripts/tables.py.
Each continues where it was stopped, and so does the comparison.
"""

from clcae.command import begin

if __name__ == "__main__":
    begin()  # before the imports that take seconds

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from clcae.images import labelled_grid, read_image, write_png
from clcae.methods.interface import OUTPUTS
from training.commandline import Command, composed, key_of, override, run_program
from training.contestant import Contestant
from training.errors import UsageError
from training.state.run_state import RunState, describe, differing_keys, read_config

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
# Keys of the comparison itself, which trainings do not receive.
OWN = {"contestant", "seeds", "num_people", "precision", "protocol", "lists", "table", "run"}
OWN |= {"seed", "report", "comparison"}
SHOWN = 8  # pictures of the grid


class Comparison:
    """Plans and runs the commands of a comparison.

    Args:
        config: as configs/compare.yaml composes it, resolved.
        folder: folder of the results.
        table: name of the table.
        overrides: typed arguments; those of trainings and of the protocol are handed on.

    Raises:
        UsageError: if there is nothing to compare, or a contestant is malformed.
    """

    def __init__(
        self, *, config: Mapping[str, Any], folder: Path, table: str, overrides: Sequence[str]
    ) -> None:
        for key, kind in (("seeds", list), ("contestant", dict), ("lists", dict)):
            if not isinstance(config.get(key), kind) or not config[key]:
                raise UsageError(f"{key} is {config.get(key)!r}: nothing to compare")
        lists = config["lists"]  # name -> arguments of scripts/evaluate.py
        self.lists = {name: further for name, further in lists.items() if further is not None}
        if not self.lists:
            raise UsageError(f"lists is {lists!r}: nothing to compare on")
        self.config, self.folder, self.table_name = config, folder, table
        roots = [(key_of(argument).split(".")[0], argument) for argument in overrides]
        self.of_trainings = [argument for root, argument in roots if root not in OWN]
        self.of_evaluations = [argument for root, argument in roots if root == "protocol"]
        self.results = folder / "results.jsonl"
        self.contestants = [Contestant.read(*entry) for entry in config["contestant"].items()]

    def run(self) -> Path:
        """Runs every command that is not done; returns the file of the table."""
        measured = [*self.trainings(), *self.evaluations()]
        commands = [*measured, self.table("table.html"), self.table("table.md")]
        for number, command in enumerate(commands):
            place = f"[{number + 1}/{len(commands)}]"
            if command.leaves is not None and is_finished(command, command.leaves):
                done = f"trained before, in {command.leaves.parent}"
                print(f"{place} {command.label}: {done}", flush=True)
                continue
            if number == len(measured):
                self._draw_grid()  # the page shows it
            print(f"{place} {command}", flush=True)
            command.run()
        table = self.folder / "table.md"
        print(f"\n{table.read_text()}\n{table}, table.html beside it", flush=True)
        return table

    def trainings(self) -> list[Command]:
        """Lists a training for every trained method and seed, each after that of its base."""
        commands: dict[Path, Command] = {}
        for contestant, seed in self._entries():
            for trained in (contestant.base, contestant):
                if trained is not None and trained.train is not None:
                    command = self._training(trained, seed)
                    assert command.leaves is not None
                    commands.setdefault(command.leaves, command)
        return [*commands.values()]

    def _training(self, contestant: Contestant, seed: int | None) -> Command:
        assert contestant.train is not None
        train = [*contestant.train]
        if contestant.base is not None:
            based = str(self._trained(contestant.base, seed))
            train = [
                override(argument.removesuffix("={base}"), based)
                if argument.endswith("={base}")
                else argument
                for argument in train
            ]
        run = override("run", contestant.run.replace("{seed}", str(seed)))
        suffix = override("trainer.suffix", self.config["trainer"]["suffix"])
        own = [override("seed", seed), run, suffix, *self._places("runs", "cache")]
        arguments = [*train, *self.of_trainings, *own]
        leaves = self._trained(contestant, seed)
        return Command(contestant.label(seed), ROOT / "train.py", arguments, leaves)

    def evaluations(self) -> list[Command]:
        """Lists an evaluation for every method, seed and list of pictures."""
        config, commands = self.config, list[Command]()
        for contestant, seed in self._entries():
            for name, further in self.lists.items():
                if contestant.lists is not None and name not in contestant.lists:
                    continue
                data, *_ = [a[5:] for a in further if a.startswith("data=")] or [name]
                # A list that has a protocol of its own takes nothing of what is typed for another.
                own = any(argument.startswith("protocol=") for argument in further)
                evaluate = [a for a in contestant.evaluate if not own or "protocol." not in a]
                arguments = [
                    override("name", contestant.name),
                    override("seed", seed),
                    f"data={data}",
                    *([f"data.num_people={config['num_people']}"] if "portraits" in data else []),
                    override("results", str(self.results)),
                    override("precision", config["precision"]),
                    *self._places("cache"),
                    *([] if own else self.of_evaluations),
                    *evaluate,
                    *further,
                ]
                arguments = [*dict.fromkeys(reversed(arguments))][::-1]  # the last of equal ones
                if seed is not None:
                    trained = str(self._trained(contestant, seed))
                    arguments.insert(0, override(contestant.source, trained))
                if name == next(iter(self.lists)) and seed in (None, config["seeds"][0]):
                    # For the grid.
                    arguments.append(override("save", str(self._pictures(contestant))))
                label = f"{contestant.label(seed)}, {name.replace('_', ' ')}"
                commands.append(Command(label, ROOT / "scripts/evaluate.py", arguments))
        return commands

    def table(self, name: str) -> Command:
        """Returns the command that writes the table into a file of the folder."""
        files = ("--results", str(self.results), "--out", str(self.folder / name))
        return Command(name, ROOT / "scripts/tables.py", [self.table_name, *files])

    def _draw_grid(self) -> None:
        """Draws held-out pictures beside the reconstructions of every method and space."""
        source = instantiate(composed(CONFIGS, "evaluate", self.evaluations()[0].arguments).data)
        shown = range(min(SHOWN, len(source)))
        columns = {"input": source.images(shown)}
        for contestant in self.contestants:
            for space in OUTPUTS:
                folder = self._pictures(contestant) / space
                files = [folder / f"{source.name(index)}.png" for index in shown]
                if all(file.is_file() for file in files):
                    columns[f"{contestant.name} {space}"] = torch.stack([*map(read_image, files)])
        write_png(labelled_grid(columns, scale=2), self.folder / "grid.png")

    def _entries(self) -> Iterator[tuple[Contestant, int | None]]:
        """Yields every method with every seed, or with None if nothing is trained."""
        for contestant in self.contestants:
            for seed in [None] if contestant.train is None else self.config["seeds"]:
                yield contestant, seed

    def _pictures(self, contestant: Contestant) -> Path:
        return self.folder / "pictures" / contestant.name

    def _trained(self, contestant: Contestant, seed: int | None) -> Path:
        run = contestant.run.replace("{seed}", str(seed)) + (self.config["trainer"]["suffix"] or "")
        return Path(self.config["paths"]["runs"]) / run / contestant.file

    def _places(self, *names: str) -> list[str]:
        """Arguments that hand on folders and the device."""
        places = [override(f"paths.{name}", self.config["paths"][name]) for name in names]
        return [*places, override("device", self.config["device"])]


def is_finished(command: Command, leaves: Path) -> bool:
    """Returns whether the run folder holds this very training, to its end.

    A folder with another training is left to train.py, which refuses it and says why.
    """
    config = leaves.with_name("config.yaml")
    if not leaves.is_file() or not config.is_file():
        return False
    return not differing_keys(read_config(config), composed(CONFIGS, "train", command.arguments))


def compare(cfg: DictConfig, *, table: str, overrides: Sequence[str]) -> Path:
    """Runs, or continues, the comparison that configs/compare.yaml composes; see `Comparison`."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("a comparison starts its own processes: start it without torchrun")
    config: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    folder = Path(config["paths"]["runs"]) / f"{config['run']}{config['trainer']['suffix'] or ''}"
    comparison = Comparison(config=config, folder=folder, table=table, overrides=overrides)
    state = RunState(folder=folder)
    with state.locked():
        state.prepare(cfg, describe(torch.device("cpu")))
        return comparison.run()


def run(cfg: DictConfig) -> None:
    """Runs the composed configuration."""
    given = HydraConfig.get()
    compare(cfg, table=given.runtime.choices["table"], overrides=given.overrides.task)


if __name__ == "__main__":
    run_program(run, name="scripts/compare.py", configs=CONFIGS, primary="compare")
