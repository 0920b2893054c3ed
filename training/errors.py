"""Errors that a user can act on, and the one line that each of them becomes."""

import difflib
import re
import signal
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
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

from clcae.files import FULL_DISK

_LOST = re.compile(r"gloo.*Connection|Connection (closed|reset) by peer|NCCL.*remote process", re.S)
OURS = ("clcae", "editing", "training", "scripts")  # packages whose ValueErrors are about input


class UserError(Exception):
    """Something the user can put right: the message says what was given and what was expected.

    An empty message prints nothing: another process of the same run has already spoken.
    """

    status: int = 1  # the exit status of the program


class UsageError(UserError):
    """The command line or the configuration is wrong."""

    status = 2


class NonFiniteError(UserError):
    """A loss term or a gradient became infinite or NaN; the parameters were not touched by it."""


class StoppedError(UserError):
    """The run was asked to stop by a signal and saved itself first.

    The exit status is 128 plus the signal's number, as a shell reports it.
    """

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.status = 128 + signal_number


def explain(
    error: BaseException, *, name: str, configs: Path, primary: str, arguments: Sequence[str]
) -> tuple[str, int] | None:
    """Turns an error of the script `name` into one line and an exit status.

    Returns:
        The line, empty if nothing is to be said, and the status: 2 for usage, 1 for failure; None
        for an error that deserves its stack trace.
    """
    if isinstance(error, UserError):
        return str(error), error.status
    if isinstance(error, KeyboardInterrupt):
        return "stopped; the same command continues", 130
    if isinstance(error, OverrideParseException):
        return f"cannot read {error.override!r}, expected KEY=VALUE ({name} --help)", 2
    if isinstance(error, MissingMandatoryValue) and error.full_key:
        return f"{error.full_key} is not given: write {error.full_key}=VALUE ({name} --help)", 2
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        line = _explain_config(error, configs=configs, primary=primary, arguments=arguments)
        return line.replace("--help", f"{name} --help"), 2
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory: give a smaller batch_size", 1
    if isinstance(error, BrokenPipeError):  # as of train.py | head: nobody reads any more
        return "", 128 + signal.SIGPIPE
    if isinstance(error, UnicodeEncodeError):
        return f"cannot write {error.object[:200]!a}: it is no valid text ({error.reason})", 1
    disk = caused_by_disk(error)
    if disk is not None and disk.errno in FULL_DISK:
        return f"cannot write {disk.filename or 'a file'}: {disk.strerror}", 1
    if isinstance(error, OSError):
        named = error.filename and not isinstance(error, FileNotFoundError)
        file = error.filename2 or error.filename  # that a renamed file should have replaced
        return one_line(f"{file}: {error.strerror}" if named else str(error)), 1
    if isinstance(error, RuntimeError) and _LOST.search(str(error)):
        return "another process of this run has ended: it says why", 1
    origin = _origin(error)
    if isinstance(error, ValueError) and origin in OURS:
        return one_line(str(error)), 1
    if isinstance(error, ValueError) and origin == "hydra":  # such as GROUP=null
        return one_line(str(error)), 2
    return None


def caused_by_disk(error: BaseException) -> OSError | None:
    """Returns the OSError behind an error, such as torch.save's RuntimeError; None without one."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    return cause


def one_line(text: str) -> str:
    """Joins lines into one."""
    return " ".join(text.split())


def choices_of(configs: Path, group: str) -> list[str]:
    """Lists the choices of a configuration group; those of a folder within it have its name."""
    folder = configs / group
    return sorted(
        path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")
    )


def _explain_config(
    error: Exception, *, configs: Path, primary: str, arguments: Sequence[str]
) -> str:
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        choices = ", ".join(error.options or choices_of(configs, group))
        return f"there is no {group or 'configuration'} {choice!r}; there are {choices}"
    wrong = re.search(r"Could not override '([^']+)'", str(error))
    if isinstance(error, ConfigCompositionException) and wrong:
        return _explain_key(wrong[1], configs=configs, primary=primary, arguments=arguments)
    return one_line(str(error))


def _explain_key(key: str, *, configs: Path, primary: str, arguments: Sequence[str]) -> str:
    """Says why a key cannot be set, with the keys that are like it."""
    if (configs / key).is_dir():
        choices = ", ".join(choices_of(configs, key))
        return f"{key} is added with a plus: +{key}=NAME, one of {choices}"
    chosen = [argument for argument in arguments if _is_choice(argument, configs)]
    keys = _known_keys(configs, primary, chosen)
    close = difflib.get_close_matches(key, keys, n=3)
    siblings = [known for known in keys if known.rpartition(".")[0] == key.rpartition(".")[0]]
    if not siblings:
        siblings = [known for known in keys if "." not in known]
    meant = f"did you mean {' or '.join(close)}? " if close else ""
    return f"there is no key {key!r}; {meant}There are {', '.join(siblings)} (--help)"


def _is_choice(argument: str, configs: Path) -> bool:
    """Whether an argument chooses a file of a group: its keys are those that may be set."""
    group, equals, _ = argument.lstrip("+").partition("=")
    return bool(equals) and (configs / group.partition("@")[0]).is_dir()


def _known_keys(configs: Path, primary: str, overrides: list[str]) -> list[str]:
    """Lists all dotted keys of the composed configuration, or none if it does not compose."""
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(configs), version_base="1.3"):
            config = compose(config_name=primary, overrides=overrides)
    except HydraException:
        return []
    return list(_dotted(OmegaConf.to_container(config, resolve=False), ""))


def _dotted(value: Any, prefix: str) -> Iterable[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{prefix}{key}"
            yield from _dotted(inner, f"{prefix}{key}.")


def _origin(error: BaseException) -> str:
    """Returns the package whose line raised the error."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return str(frames[-1].f_globals.get("__name__", "")).partition(".")[0] if frames else ""
