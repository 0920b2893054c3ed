"""Every configuration composes, every target exists and takes the arguments it is given."""

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import OmegaConf

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
CHOICES = [
    [],
    ["trainer=debug"],
    ["trainer=gpu"],
    ["optim=adam"],
    *[[f"+experiment={name}"] for name in EXPERIMENTS],
]


def composed(overrides: list[str]) -> Any:
    with initialize_config_dir(config_dir=str(CONFIGS), version_base="1.3"):
        return OmegaConf.to_container(compose("train", overrides=overrides), resolve=True)


def targets(node: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from targets(value)


def test_the_experiments_are_found() -> None:
    assert len(EXPERIMENTS) == 6


@pytest.mark.parametrize("overrides", CHOICES, ids=" ".join)
def test_every_target_binds(overrides: list[str]) -> None:
    found = list(targets(composed(overrides)))
    assert len(found) >= 5
    for node in found:
        signature = inspect.signature(get_object(node["_target_"]))
        given = [key for key in node if key not in ("_target_", "_partial_")]
        signature.bind_partial(**dict.fromkeys(given))


@pytest.mark.parametrize(
    "path", sorted((CONFIGS / "experiment").glob("*.yaml")), ids=lambda p: p.stem
)
def test_an_experiment_begins_with_its_command(path: Path) -> None:
    package, command = path.read_text().splitlines()[:2]
    assert package == "# @package _global_"
    assert command == f"# python train.py +experiment={path.stem}"
