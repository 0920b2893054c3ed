"""Every configuration composes with every command that takes it, and every target binds."""

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import OmegaConf

from training.errors import choices_of

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FILES = {str(path.relative_to(CONFIGS).with_suffix("")) for path in CONFIGS.glob("*/**/*.yaml")}
PRIMARIES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
# Groups that are not, or not as one choice, among the defaults.
FURTHER = {
    "compare": ["contestant", "+comparison"],
    "evaluate": [],
    "train": ["+experiment", "+ablation"],
}
# They change what the other groups belong to.
ALONE = {"stages", "+experiment", "+ablation", "+comparison"}
OF_EXPERIMENTS = {"base_code", "discriminator", "e4e"}  # parts that they add
# Of optimizers and schedules the run gives the other arguments.
PARTIAL = {"optim", "schedule"}


def composed(primary: str, overrides: tuple[str, ...] = (), *, hydra: bool = False) -> Any:
    with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        return compose(primary, overrides=list(overrides), return_hydra_config=hydra)


def choices() -> dict[tuple[str, str], list[str]]:
    """(primary, key of a group that it takes) -> KEY=CHOICE of every file of the group."""
    found = {}
    for primary in PRIMARIES:
        keys = composed(primary, hydra=True).hydra.runtime.choices
        for key in [*(key for key in keys if "hydra" not in key), *FURTHER[primary]]:
            choices = choices_of(CONFIGS, key.lstrip("+").partition("@")[0])
            found[primary, key] = [f"{key}={choice}" for choice in choices]
    return found


CHOICES = choices()


def combinations() -> list[tuple[str, tuple[str, ...]]]:
    """Compositions in which every choice occurs, independent groups in the same ones."""
    found: list[tuple[str, tuple[str, ...]]] = [(primary, ()) for primary in PRIMARIES]
    for primary in PRIMARIES:
        own = {key: files for (taker, key), files in CHOICES.items() if taker == primary}
        together = [files for key, files in own.items() if key not in ALONE]
        for number in range(max(map(len, together))):
            found.append((primary, tuple(files[number % len(files)] for files in together)))
    for (primary, key), files in CHOICES.items():
        found += [(primary, (file,)) for file in files if key in ALONE]
    return found


COMBINATIONS = combinations()


def nodes(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(node, Mapping):
        yield path, node
        for key, value in node.items():
            yield from nodes(value, (*path, str(key)))


def test_every_file_is_taken_by_a_command() -> None:
    pairs = {(primary, file) for primary, overrides in COMBINATIONS for file in overrides}
    assert len(pairs) == sum(len(files) for files in CHOICES.values())
    taken = [file.lstrip("+").partition("=") for _, file in pairs]
    assert {f"{key.partition('@')[0]}/{choice}" for key, _, choice in taken} == FILES
    assert PRIMARIES == ["compare", "evaluate", "train"]
    assert (len(FILES), len(EXPERIMENTS), len(pairs)) == (164, 20, 397)


@pytest.mark.parametrize(("primary", "overrides"), COMBINATIONS, ids=str)
def test_it_composes_and_every_target_binds(primary: str, overrides: tuple[str, ...]) -> None:
    config: Any = OmegaConf.to_container(composed(primary, overrides), resolve=True)
    bound = 0
    for path, node in nodes(config):
        if "_part_" in node and "stages=" not in str(overrides):  # experiments have its parts
            added = node["_part_"] in OF_EXPERIMENTS and "+experiment" not in str(overrides)
            assert added or isinstance(config[node["_part_"]], Mapping), path
        if "_target_" in node:
            signature = inspect.signature(get_object(node["_target_"]))
            given = dict.fromkeys(key for key in node if key not in ("_target_", "_partial_"))
            partial = "_partial_" in node or PARTIAL & set(path)
            (signature.bind_partial if partial else signature.bind)(**given)
            bound += 1
    assert bound >= 1


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_begins_with_its_command(name: str) -> None:
    package, command = (CONFIGS / "experiment" / f"{name}.yaml").read_text().splitlines()[:2]
    assert package == "# @package _global_"
    assert command == f"# python train.py +experiment={name}"
