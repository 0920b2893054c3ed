"""What README tells a stranger to type exists and parses."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = sorted(set(re.findall(r"train\.py((?: [+\w@.]+=[\w./@+\[\]]+)+)", README)))
SCRIPTS = sorted(set(re.findall(r"^python (scripts/\w+\.py .*)$", README, re.MULTILINE)))


def test_commands_are_found() -> None:
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_composes(command: str) -> None:
    with initialize_config_dir(config_dir=str(ROOT / "configs"), version_base="1.3"):
        compose("train", overrides=command.split())


def test_targets_of_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"(?<=make )(?:train|test|lint)", README)
    assert {"train", "test", "lint"} == set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_files_that_readme_shows_or_names_exist() -> None:
    linked = re.findall(r"\]\((?!http)([^)]+)\)", README)
    assert len(linked) >= 2
    for name in linked:
        assert (ROOT / name).exists(), name


def test_scripts_are_found() -> None:
    assert len(SCRIPTS) >= 9


@pytest.mark.parametrize("command", SCRIPTS)
def test_a_script_takes_its_arguments(command: str) -> None:
    script, *arguments = shlex.split(re.split(r" {3,}", command)[0])  # what follows is a remark
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    if script == "scripts/evaluate.py":  # Hydra's
        with initialize_config_dir(config_dir=str(ROOT / "configs"), version_base="1.3"):
            compose("evaluate", overrides=module._rewritten(arguments))
        return
    if arguments == ["--help"]:
        with pytest.raises(SystemExit, match="0"):
            module._parser().parse_args(arguments)
    else:
        module._parser().parse_args(arguments)
