"""A call that a process of its own makes, whenever this one asks for it.

What a setting of the whole process changes can so take turns with what runs without it.
"""

import contextlib
import subprocess
import weakref
from collections.abc import Sequence
from typing import IO

from benchmarks.memory import ChildError
from benchmarks.timing import Call

READY, DONE = "ready", "done"


class Served:
    """Starts a command that answers as `serve` does, and waits until it is ready.

    Calling it makes the command's call once and waits for its end; the way there and back takes
    some 0.1 ms. The process ends with this object.

    Args:
        command: What to start.

    Raises:
        ChildError: it ended instead, with what it said last; when it is built or called.
    """

    warmed = True  # it sleeps between calls, and what it freed has gone elsewhere meanwhile

    def __init__(self, command: Sequence[str]) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        weakref.finalize(self, _stop, self._process)
        self._await(READY)

    def __call__(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended, and what it said is read below
            print(file=self._process.stdin, flush=True)
        self._await(DONE)

    def _await(self, word: str) -> None:
        process = self._process
        assert process.stdout is not None and process.stderr is not None
        if process.stdout.readline().strip() == word:
            return
        process.kill()
        said = process.stderr.read().strip().splitlines()
        raise ChildError(
            f"its process ended with {process.wait()}: {said[-1] if said else 'no word'}"
        )


def serve(call: Call, asked: IO[str]) -> None:
    """Makes a call for every line of `asked`, and says on stdout when it is done."""
    print(READY, flush=True)
    for _ in asked:
        call()
        print(DONE, flush=True)


def _stop(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()
