"""Turns an error into the one line that a user can act on, and an exit status."""

import difflib
import re
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from training.errors import UserError
from training.files import FULL_DISK

OURS = ("clcae", "editing", "training")  # packages whose ValueErrors are about what the user gave


def explain(
    error: BaseException, *, configs: Path, arguments: Iterable[str]
) -> tuple[str, int] | None:
    """The line and the exit status for an error that is not a fault of the program.

    Args:
        error: what was raised.
        configs: the folder of configurations.
        arguments: the command line.

    Returns:
        The line, empty where nothing is to be said, and the status: 2 for usage, 1 for failure;
        None for an error that deserves its stack trace.
    """
    if isinstance(error, UserError):
        return str(error), error.status
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return _explain_config(error, configs=configs, arguments=list(arguments)), 2
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return f"cannot write {error.filename or 'a file'}: {error.strerror}", 1
    if isinstance(error, FileNotFoundError) or (isinstance(error, ValueError) and _is_ours(error)):
        return one_line(str(error)), 1
    return None


def one_line(text: str) -> str:
    """The text without its line breaks."""
    return " ".join(text.split())


def experiments(configs: Path) -> list[str]:
    """The names of the experiments."""
    return sorted(path.stem for path in (configs / "experiment").glob("*.yaml"))


def _explain_config(error: Exception, *, configs: Path, arguments: list[str]) -> str:
    available = ", ".join(experiments(configs)) or "none"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        options = ", ".join(error.options or ()) or available
        return f"there is no {group or 'configuration'} {name!r}; there are {options}"
    if isinstance(error, MissingMandatoryValue):
        return f"{one_line(str(error))}: set it on the command line"
    if isinstance(error, OverrideParseException):
        return f"cannot read {error.override!r}, expected KEY=VALUE (python train.py --help)"
    wrong = re.search(r"Could not override '([^']+)'", str(error))
    if isinstance(error, ConfigCompositionException) and wrong:
        return _explain_key(wrong.group(1), configs=configs, arguments=arguments)
    return one_line(str(error))


def _explain_key(key: str, *, configs: Path, arguments: list[str]) -> str:
    """Why a key cannot be set, with the keys that are like it."""
    if key == "experiment":
        names = ", ".join(experiments(configs)) or "none"
        return f"an experiment is added with a plus: +experiment=NAME, one of {names}"
    if (configs / key).is_dir():
        names = ", ".join(sorted(path.stem for path in (configs / key).glob("*.yaml")))
        return f"{key} is not among the defaults: write +{key}=NAME, one of {names}"
    keys = _known_keys(configs, [a for a in arguments if a.startswith("+experiment=")])
    close = difflib.get_close_matches(key, keys, n=3)
    siblings = [known for known in keys if known.rpartition(".")[0] == key.rpartition(".")[0]]
    if not siblings:
        siblings = [known for known in keys if "." not in known]
    meant = f"did you mean {' or '.join(close)}? " if close else ""
    return (
        f"there is no key {key!r}; {meant}There are {', '.join(siblings)} (python train.py --help)"
    )


def _known_keys(configs: Path, overrides: list[str]) -> list[str]:
    """All dotted keys of the composed configuration; nothing where it does not compose."""
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(configs), version_base="1.3"):
            config = compose(config_name="train", overrides=overrides)
    except HydraException:
        return []
    return list(_dotted(OmegaConf.to_container(config, resolve=False), ""))


def _dotted(value: Any, prefix: str) -> Iterable[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{prefix}{key}"
            yield from _dotted(inner, f"{prefix}{key}.")


def _is_ours(error: BaseException) -> bool:
    """Whether one of our own lines raised the error, and not a library that we called."""
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return False
    module = str(frames[-1][0].f_globals.get("__name__", ""))
    return module.split(".")[0] in OURS
