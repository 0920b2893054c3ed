"""Quotes what files say in messages: in one printable line, however long or nested it is."""

import json
import math
from collections.abc import Sequence
from typing import Any

LONGEST_LINE = 2000  # characters
LONGEST_NAME = 80
LONGEST_NUMBER = 40  # digits of an integer in JSON


def one_line(text: object, length: int = LONGEST_LINE) -> str:
    """Makes one printable line of a text or of an error's: white space is joined, the end cut.

    Control characters are escaped, so that nothing in a file can steer a terminal.
    """
    given = str(text)
    line = " ".join(given[: 2 * length].split())
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line[: length + 1])
    cut = len(line) > length or len(given) > 2 * length
    return f"{line[:length]}..." if cut else line


def shown(value: object, length: int = LONGEST_NAME) -> str:
    """Formats a value of a stranger's file in few words; what may be large or nested is not."""
    if isinstance(value, str):
        return repr(value[:length]) + "..." * (len(value) > length)
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    plain = value is None or isinstance(value, bool | int | float)
    return repr(value) if plain else f"a {type(value).__name__}"


def listing(names: Sequence[object], most: int) -> str:
    """Lists the first names, shortened, and counts the others."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(one_line(name, LONGEST_NAME) for name in names[:most]) + rest


def parse_json(text: str | bytes) -> Any:
    """Parses JSON of finite numbers.

    Raises:
        ValueError: if it is no JSON, is nested too deeply, or holds NaN, infinity or an integer
            of more than 40 digits.
    """
    try:
        return json.loads(
            text, parse_constant=_refuse, parse_float=_finite_float, parse_int=_short_int
        )
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error


def _refuse(text: str) -> float:
    raise ValueError(f"JSON that holds {text}, expected finite numbers")


def _finite_float(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(shown(text))


def _short_int(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        _refuse(f"an integer of {len(text)} digits")
    return int(text)
