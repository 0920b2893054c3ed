"""Writes and reads the command lines of Hydra."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

# What Hydra reads as a text without quotes.
_PLAIN = re.compile(r"(?!(?i:null|true|false|nan|inf)$)\.{0,2}[A-Za-z_/][\w./+-]*")


def override(key: str, value: Any) -> str:
    """Writes KEY=VALUE so that Hydra reads the same value back, quoting where it must."""
    return f"{key}={_literal(value)}"


def key_of(argument: str) -> str:
    """Returns the key of an argument KEY=VALUE, +KEY=VALUE or ~KEY."""
    return argument.partition("=")[0].lstrip("+~")


def composed(configs: Path, primary: str, arguments: Sequence[str]) -> DictConfig:
    """Composes the configuration of a command; inside a Hydra program, with its search path."""
    if GlobalHydra.instance().is_initialized():
        return compose(primary, overrides=list(arguments))
    with initialize_config_dir(config_dir=str(configs), version_base="1.3"):
        return compose(primary, overrides=list(arguments))


def _literal(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_literal(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(_literal, value)) + "]"
    if isinstance(value, str) and not _PLAIN.fullmatch(value):
        quoted = value.replace("'", "\\'")
        return f"'{quoted}'"
    return str(value)
