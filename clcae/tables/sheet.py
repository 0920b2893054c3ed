"""What a table looks like before it has a format: lines of words and numbers, with footnotes."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

ARROWS = {"higher": "↑", "lower": "↓"}
DIFFERENT, AS_FAR_AS_KNOWN = "†", "‡"
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control, invisible formatting, surrogates, line breaks


@dataclass(frozen=True)
class Mark:
    """A reference to a footnote."""

    symbol: str
    number: int

    def __str__(self) -> str:
        return f"{self.symbol}{self.number}"


@dataclass(frozen=True)
class Cell:
    """A number of a table.

    Args:
        text: As it is read; empty where there is none.
        exact: As a program reads it, all digits.
        value: What it is sorted by; None goes last.
        best: Whether it is the best of its column.
        mark: The footnote it refers to.
    """

    text: str = ""
    exact: str = ""
    value: float | None = None
    best: bool = False
    mark: Mark | None = None


@dataclass(frozen=True)
class Heading:
    """Name of a column of numbers, and which way is better, "" where neither is."""

    name: str
    direction: str = ""

    def __str__(self) -> str:
        return f"{self.name} {ARROWS.get(self.direction, '')}".strip()


Protocol = Mapping[str, Mapping[str, str | None]]  # column -> field -> words


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Args:
        words: Its first columns.
        cells: Its numbers.
        measured: Whether it was measured here; a published line, or one of a table without any
            published, is not set apart.
        protocol: Of every column with a number, for programs.
        differs: Where the protocol is another than the table's: column -> field -> both.
    """

    words: tuple[str, ...]
    cells: tuple[Cell, ...]
    measured: bool = False
    protocol: Protocol = field(default_factory=dict)
    differs: Mapping[str, Mapping[str, tuple[str | None, str | None]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Sheet:
    """A table, ready for any format.

    Args:
        title: What it shows.
        words: Headings of the columns of words.
        headings: Of the columns of numbers.
        lines: In order.
        source: Where the published numbers are from.
        footnotes: Of the marks.
        notes: Of the whole table.
        protocol: One sentence a column.
    """

    title: str
    words: tuple[str, ...]
    headings: tuple[Heading, ...]
    lines: tuple[Line, ...]
    source: str = ""
    footnotes: tuple[tuple[Mark, str], ...] = ()
    notes: tuple[str, ...] = ()
    protocol: tuple[str, ...] = ()


def plain(text: object) -> str:
    """A stranger's text on one line, without control and invisible characters."""
    kept = (" " if unicodedata.category(c) in _UNSEEN else c for c in str(text))
    return " ".join("".join(kept).split())
