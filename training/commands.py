"""Commands of the project in processes of their own, one after the other.

A signal that asks to stop is handed on to the command at work, which ends in its own good order.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import StoppedError, UserError
from training.interrupts import Interrupts

WAIT = 0.2  # seconds between two looks at a command
# What Hydra reads as a text without quotes.
_PLAIN = re.compile(r"(?!(?i:null|true|false|nan|inf)$)\.{0,2}[A-Za-z_/][\w./+-]*")


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of the benchmark.

    Args:
        label: What it is about.
        script: The script.
        arguments: Its arguments.
        run: Of a training the file that it leaves in its run folder when it is finished.
    """

    label: str
    script: Path
    arguments: tuple[str, ...]
    run: Path | None = None

    def __str__(self) -> str:
        return f"{self.script.name} {shlex.join(self.arguments)}"


def finish(command: Command, place: str) -> None:
    """Runs a command to its end, and hands on to it the signals that ask to stop.

    Args:
        command: The command.
        place: Its number among the others.

    Raises:
        UserError: It failed, or was stopped.
    """
    print(f"{place} {command.label}: {command}", flush=True)
    handed = False
    with Interrupts() as interrupts, _started(command) as process:
        while process.poll() is None:
            try:
                process.wait(timeout=WAIT)
            except subprocess.TimeoutExpired:
                if interrupts.received and not handed:
                    process.send_signal(interrupts.received)
                    handed = True
    if interrupts.received:
        name = signal.Signals(interrupts.received).name
        raise StoppedError(
            f"stopped by {name}; the same command goes on from here",
            signal_number=interrupts.received,
        )
    if process.returncode:
        raise UserError(
            f"{command.label}: {command.script.name} ended with status {process.returncode}, for "
            "the reason above; the same command goes on from there"
        )


@contextmanager
def _started(command: Command) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that does not outlive this block.

    It has a group of its own: a signal of the terminal reaches it once, from here. Of trainings
    everything is shown, of the others what they say on stderr.
    """
    # train.py asks Hydra for whole errors, of its own; here it would ask for stack traces.
    environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    process = subprocess.Popen(
        [sys.executable, str(command.script), *command.arguments],
        env=environment,
        process_group=0,
        stdout=None if command.run else subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def override(key: str, value: Any) -> str:
    """key=value as Hydra reads it, whatever the value."""
    return f"{key}={_literal(value)}"


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
