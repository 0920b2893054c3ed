"""What the scripts share: parsers, option types, and failures as one line with an exit status."""

import argparse
import atexit
import io
import json
import os
import re
import signal
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from clcae.files import write_text
from clcae.openmp import bound_spinning
from clcae.quoting import listing, one_line, parse_json

_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")  # as torch says it


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Adds an option's default to its help, unless there is none or the text says it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        some = action.default or isinstance(action.default, float) or type(action.default) is int
        unsaid = some and action.default != argparse.SUPPRESS and "default" not in text
        return f"{text} (default: %(default)s)" if unsaid and action.option_strings else text


def make_parser(name: str, *, description: str, examples: str) -> argparse.ArgumentParser:
    """Builds a command's parser; `examples` end its --help as they are written."""
    return argparse.ArgumentParser(
        prog=name,
        description=textwrap.fill(description, 100),
        epilog=examples,
        formatter_class=HelpFormatter,
    )


def begin() -> None:
    """Prepares a process for a command; called before slow imports, which may be interrupted.

    Until `begun` is called, as `run_command` does, an interruption ends the process at once and
    without a traceback.
    Characters that the terminal does not know are replaced, and a reader that closes its end of the
    pipe ends the output in silence. Threads that wait for each other yield soon (`clcae.openmp`).
    """
    signal.signal(signal.SIGINT, _interrupted)
    bound_spinning()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace" if stream is sys.stderr else "replace")
    atexit.register(_flush)


def begun() -> None:
    """Lets interruptions raise KeyboardInterrupt again; called when the imports are done."""
    if signal.getsignal(signal.SIGINT) is _interrupted:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupted(*_: object) -> None:
    os._exit(130)  # imports and parsers have nothing to tidy up


def _flush() -> bool:
    """Writes what is left for stdout; False where nobody reads it any more."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the interpreter would try again and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def is_out_of_memory(error: BaseException) -> bool:
    """Tests whether an error says that memory is short, on the CPU or on a GPU."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)


def run_command(name: str, work: Callable[[], int | None], *, resumable: bool = False) -> int:
    """Runs a command's work and reports a failure in one line on stderr.

    `resumable` says that the same command goes on where it was interrupted. Returns the exit
    status: that of `work` (None is 0), 1 after a failure, 130 after an interruption.
    """
    begun()
    try:
        return work() or 0
    except BrokenPipeError as error:
        if not _flush():
            return 1
        line, status = str(error), 1
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        line, status = "out of memory: give a smaller --batch-size, or another --device", 1
    except (ValueError, OSError, ImportError) as error:
        line, status = one_line(error), 1
    except KeyboardInterrupt:
        line = "stopped; the same command goes on from here" if resumable else "stopped"
        status = 130
    print(f"{name}: {line}", file=sys.stderr)
    return status


def positive(text: str) -> int:
    """Parses a positive whole number."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a positive number")
    return int(text)


def names(text: str) -> list[str]:
    """Parses a list of names such as smile,age."""
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise argparse.ArgumentTypeError(f"{text!r}, expected names such as smile,age")
    return found


def span(text: str) -> tuple[int, int]:
    """Parses a range such as 2-6, its end excluded."""
    match = re.fullmatch(r"(\d{1,3})-(\d{1,3})", text)
    if not match or int(match[1]) >= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r}, expected first-end (end excluded) as 2-6")
    return int(match[1]), int(match[2])


def numbers(text: str) -> list[float]:
    """Parses a list of numbers: "-3,0,3", or "-3,...,3" for all whole numbers between."""
    try:
        if match := re.fullmatch(r"(-?\d{1,4}),\.\.\.,(-?\d{1,4})", text):
            values = [float(number) for number in range(int(match[1]), int(match[2]) + 1)]
        else:
            values = [float(number) for number in text.split(",")]
    except ValueError:
        values = []
    if not 1 <= len(values) <= 101 or not all(abs(number) < 1e6 for number in values):
        raise argparse.ArgumentTypeError(f"{text!r}, expected numbers as -3,-1,1,3 or -3,...,3")
    return values


def claim(path: Path, settings: Mapping[str, Any], *, again: bool | None = None) -> None:
    """Writes the settings of a folder's results, or checks that an earlier run had the same.

    Args:
        path: file of the settings, in the folder of the results.
        settings: anything JSON can hold.
        again: replace other settings, because all results are made again; None where the command
            cannot do that.

    Raises:
        ValueError: if the folder holds results of other settings, which are named.
    """
    wanted = json.loads(json.dumps(settings))
    if path.is_file() and not again:
        try:
            found = parse_json(path.read_text())
        except ValueError:
            found = None
        found = found if isinstance(found, dict) else {}
        if found == wanted:
            return
        agreeing = [key for key in wanted if key in found and found[key] == wanted[key]]
        other = [key for key in {**wanted, **found} if key not in agreeing]
        redo = "the same settings" if again is None else "--overwrite to make them again"
        raise ValueError(
            f"{path.parent} holds results of other settings ({listing(other, 6)}): give another "
            f"--out, or {redo}"
        )
    write_text(path, json.dumps(wanted, indent=2) + "\n")
