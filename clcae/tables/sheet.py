"""The content of a table before it has a format: lines of words and numbers, with footnotes."""

import math
import statistics
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

ARROWS = {"higher": "↑", "lower": "↓"}
DIFFERENT, AS_FAR_AS_KNOWN = "†", "‡"
PLUS_MINUS = " ± "
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control, invisible formatting, surrogates, line breaks


@dataclass(frozen=True)
class Spread:
    """Values of one metric over several seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Arithmetic mean."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float:
        """Sample standard deviation; NaN for one value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan


@dataclass(frozen=True)
class Mark:
    """Reference to a footnote."""

    symbol: str
    number: int

    def __str__(self) -> str:
        return f"{self.symbol}{self.number}"


@dataclass(frozen=True)
class Cell:
    """A number of a table; empty without arguments."""

    text: str = ""  # for readers
    exact: str = ""  # for programs, with all digits
    value: float | None = None  # to sort by; None goes last
    deviation: float = 0.0  # over seeds
    best: bool = False  # of its column
    mark: Mark | None = None


@dataclass(frozen=True)
class Heading:
    """Name of a column of numbers; direction is "higher", "lower", or "" if neither is better."""

    name: str
    direction: str = ""

    def __str__(self) -> str:
        return f"{self.name} {ARROWS.get(self.direction, '')}".strip()


Protocol = Mapping[str, Mapping[str, str | None]]  # column -> field -> words


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Args:
        words: texts of its first columns.
        measured: whether it is set apart as measured here, below published lines.
        protocol: how each of its numbers was measured, for programs.
        differs: column -> field -> (this line's words, the table's), where they differ.
    """

    words: tuple[str, ...]
    cells: tuple[Cell, ...]
    measured: bool = False
    protocol: Protocol = field(default_factory=dict)
    differs: Mapping[str, Mapping[str, tuple[str | None, str | None]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Sheet:
    """A table without a format."""

    title: str
    words: tuple[str, ...]  # headings of the columns of words
    headings: tuple[Heading, ...]  # of the columns of numbers
    lines: tuple[Line, ...]
    source: str = ""  # of the published numbers
    footnotes: tuple[tuple[Mark, str], ...] = ()
    notes: tuple[str, ...] = ()
    protocol: tuple[str, ...] = ()  # one sentence a column


def plain(text: object) -> str:
    """Puts a text on one line, without control characters and invisible ones."""
    kept = (" " if unicodedata.category(c) in _UNSEEN else c for c in str(text))
    return " ".join("".join(kept).split())
