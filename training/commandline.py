"""Command lines of train.py, scripts/evaluate.py and scripts/compare.py: reads, writes, runs them.

Hydra reads VALUE of KEY=VALUE by a grammar of its own: 1e3 and 2024_11_28 are numbers, brackets are
lists, a second = is an error. `rewritten` quotes names and paths, so that they stay the text that
was typed, and lets a file stand where a choice of a group is expected.
"""

import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig

from clcae.command import begun
from clcae.ops.memory import keep_freed_memory
from training.errors import StoppedError, UsageError, UserError, choices_of, explain
from training.trainer import interrupts

# Root key of a group -> the choice that loads a file, and the key of that file.
FILES = {
    "method": ("file", "source"),
    "generator": ("file", "source"),
    "data": ("folder", "root"),
    "validation": ("folder", "root"),
    "test": ("folder", "root"),
}
SHIPPED = "portraits/"  # of clcae.load_method: "portraits/NAME" is a shipped file
# Keys whose values are names or paths: whole keys, last parts of keys, and sections of paths.
TEXT_KEYS = {"run", "name", "results", "save", "images", "reconstructions", "originals"}
TEXT_ENDINGS = {
    *("source", "root", "split", "cache", "labels", "directions", "lpips_trunk", "file"),
    *("name", "suffix"),
}
TEXT_SECTIONS = {"paths", "weights"}
NAME_KEYS = {"run", "name", "suffix", "images"}  # of these, those that are no paths
PATIENCE = 3.0  # seconds that another process than rank 0 waits before it speaks
POLL = 0.2  # seconds between two looks at a subprocess
# What Hydra reads as a text without quotes.
_PLAIN = re.compile(r"(?!(?i:null|true|false|nan|inf)$)\.{0,2}[A-Za-z_/][\w./+-]*")


@dataclass(frozen=True)
class Command:
    """A Python script with its arguments.

    Args:
        label: what the command does, for messages.
        script: path of the script.
        arguments: arguments of the script.
        leaves: file that exists once a training is finished; None for other commands, whose
            stdout is dropped.
    """

    label: str
    script: Path
    arguments: Sequence[str]
    leaves: Path | None = None

    def __str__(self) -> str:
        return f"{self.label}: {self.script.name} {shlex.join(self.arguments)}"

    def run(self) -> None:
        """Runs the command to its end; after SIGTERM or SIGINT waits until it has stopped.

        Raises:
            StoppedError: if a signal came.
            UserError: if the command failed.
        """
        with interrupts() as received:
            status = self._wait(received)
        if received:
            name = signal.Signals(received[0]).name
            raise StoppedError(
                f"stopped by {name}; the same command goes on from here", signal_number=received[0]
            )
        if status:
            raise UserError(
                f"{self.label}: {self.script.name} ended with status {status}, for the reason "
                "above; the same command goes on from there"
            )

    def _wait(self, received: list[int]) -> int:
        # train.py and its like set it for themselves; the child would print stack traces.
        environment = {key: text for key, text in os.environ.items() if key != "HYDRA_FULL_ERROR"}
        process = subprocess.Popen(
            [sys.executable, str(self.script), *self.arguments],
            env=environment,
            process_group=0,  # a signal of the terminal reaches it once, from here
            stdout=None if self.leaves else subprocess.DEVNULL,
        )
        handed = False
        try:
            while process.poll() is None:
                try:
                    process.wait(timeout=POLL)
                except subprocess.TimeoutExpired:
                    if received and not handed:
                        process.send_signal(received[0])
                        handed = True
        finally:
            if process.poll() is None:
                process.kill()
        return process.wait()


def run_program(
    function: Callable[[DictConfig], int | None], *, name: str, configs: Path, primary: str
) -> NoReturn:
    """Runs a function on the configuration that the command line composes, and exits.

    A mistake of the user ends with one line on stderr; HYDRA_FULL_ERROR=1 shows the stack trace,
    and trainer.debug that of anything but wrong usage and a stop, before the line.

    `function` returns the exit status, None for 0; `name` is the script, for messages.
    """
    trace = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises errors instead of printing them
    keep_freed_memory()
    arguments = sys.argv[1:]

    def fail(error: BaseException, *, trace: bool) -> NoReturn:
        line, status = explain(
            error, name=name, configs=configs, primary=primary, arguments=sys.argv[1:]
        ) or (None, 1)
        if line:
            line = f"{Path(name).name}: {line}"
        status = _reported(line, status)
        if trace or line is None:
            traceback.print_exception(error)
        if line:
            print(line, file=sys.stderr)
        _leave(status)

    def run(cfg: DictConfig) -> None:
        first = os.environ.get("RANK", "0") == "0"  # one process of several is enough to read
        logging.basicConfig(level=logging.INFO if first else logging.WARNING, format="%(message)s")
        try:
            status = function(cfg)
        except (Exception, KeyboardInterrupt) as error:
            told = isinstance(error, UsageError | StoppedError | KeyboardInterrupt)
            fail(error, trace=trace or bool(cfg.get("trainer", {}).get("debug") and not told))
        if status:
            _leave(status)

    try:
        begun()
        sys.argv[1:] = rewritten(arguments, configs=configs)
        hydra.main(version_base="1.3", config_path=str(configs), config_name=primary)(run)()
    except (Exception, KeyboardInterrupt) as error:
        fail(error, trace=trace)
    _leave(0)


def _leave(status: int) -> NoReturn:
    """Exits. Under torchrun without the interpreter's own end, which threads of gloo may abort."""
    with suppress(BrokenPipeError):  # told no more than at the end of the interpreter
        sys.stdout.flush()
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torch 2.15; the launcher would report a failed run
        logging.shutdown()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _reported(line: str | None, status: int) -> int:
    """Hands a failure to torchrun, if that started the process; returns the exit status.

    torchrun repeats the line of its error file at the end. It lists every process that failed, so
    those that have nothing to say (rank 0 has said it) end well, and the others leave rank 0 the
    time to speak: once it has failed, torchrun stops them.
    """
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if file is None:
        return status
    if line == "" and os.environ.get("LOCAL_RANK") != "0":
        return 0
    if os.environ.get("RANK") != "0":
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        time.sleep(PATIENCE)
    message = {"message": line or "", "extraInfo": {"timestamp": str(int(time.time()))}}
    if line:
        with suppress(OSError):
            Path(file).write_text(json.dumps({"message": message}), encoding="utf-8")
    return status


def rewritten(arguments: Sequence[str], *, configs: Path) -> list[str]:
    """Rewrites GROUP=FILE for Hydra and quotes names and paths.

    method=FILE becomes method=file method.source='FILE', unless FILE is a choice of the group. In a
    sweep (--multirun) values with commas or parentheses are left to Hydra.

    Raises:
        UsageError: if GROUP=VALUE names neither a choice nor a file.
    """
    sweep = bool({"-m", "--multirun"} & set(arguments))
    result = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        swept = sweep and bool(set(value) & set(",()"))
        if _is_path(key) and value.startswith("~"):
            value = os.path.expanduser(value)  # noqa: PTH111 (leaves the names of nobody)
            argument = f"{key}={value}"
        if not equals or key.startswith("-") or swept or _is_hydra_syntax(value):
            result.append(argument)
        elif key.partition("@")[0] in FILES:
            result += _chosen(key, value, configs=configs)
        elif _is_text(key) and not (key.endswith("directions") and value.startswith("[")):
            result.append(override(key, value))
        else:
            result.append(argument)
    return result


def override(key: str, value: str | float | None) -> str:
    """Writes KEY=VALUE so that Hydra reads the same value back, quoting where it must."""
    return f"{key}={_literal(value)}"


def key_of(argument: str) -> str:
    """Returns the key of an argument KEY=VALUE, +KEY=VALUE or ~KEY."""
    return argument.partition("=")[0].lstrip("+~")


def composed(configs: Path, primary: str, arguments: Sequence[str]) -> DictConfig:
    """Composes the configuration of a command; inside a Hydra program, with its search path."""
    arguments = rewritten(arguments, configs=configs)
    if GlobalHydra.instance().is_initialized():
        return compose(primary, overrides=arguments)
    with initialize_config_dir(config_dir=str(configs), version_base="1.3"):
        return compose(primary, overrides=arguments)


def _chosen(key: str, value: str, *, configs: Path) -> list[str]:
    """Returns the arguments that choose a group, or a file in its place."""
    group, _, package = key.partition("@")
    package = package or group
    group = "data" if FILES[group][0] == "folder" else group
    key = group if package == group else f"{group}@{package}"
    choices = choices_of(configs, group)
    if value in choices:
        return [f"{key}={value}"]
    shipped = group == "method" and value.startswith(SHIPPED)
    if not shipped and not Path(value).exists():
        names = ", ".join(choices)
        raise UsageError(f"{package}={value} is neither a file nor one of {names}")
    choice, file_key = FILES[group]
    return [f"{key}={choice}", override(f"{package}.{file_key}", value)]


def _is_hydra_syntax(value: str) -> bool:
    """Whether a value is null, an interpolation, or quoted already."""
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value in ("", "null") or quoted or value.startswith("${")


def _is_path(key: str) -> bool:
    """Whether ~ at the beginning of the key's value stands for the home folder."""
    return key.partition("@")[0] in FILES or (
        _is_text(key) and key.lstrip("+").rpartition(".")[2] not in NAME_KEYS
    )


def _is_text(key: str) -> bool:
    section, _, rest = key.lstrip("+").partition(".")
    if not rest:
        return section in TEXT_KEYS
    return section in TEXT_SECTIONS or rest.rpartition(".")[2] in TEXT_ENDINGS


def _literal(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str) and not _PLAIN.fullmatch(value):
        return str(QuotedString(text=value, quote=Quote.single).with_quotes())
    return str(value)
