"""Runs commands in processes of their own; a signal that asks to stop is handed on to them."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.errors import StoppedError, UserError
from training.interrupts import Interrupts

POLL = 0.2  # seconds between two looks at a process


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
        with Interrupts() as interrupts:
            status = self._wait(interrupts)
        if interrupts.received:
            raise StoppedError(
                f"stopped by {signal.Signals(interrupts.received).name}; "
                "the same command goes on from here",
                signal_number=interrupts.received,
            )
        if status:
            raise UserError(
                f"{self.label}: {self.script.name} ended with status {status}, for the reason "
                "above; the same command goes on from there"
            )

    def _wait(self, interrupts: Interrupts) -> int:
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
                    if interrupts.received and not handed:
                        process.send_signal(interrupts.received)
                        handed = True
        finally:
            if process.poll() is None:
                process.kill()
        return process.wait()
