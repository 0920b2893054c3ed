"""Puts published and measured rows into one table, comparing only values of one protocol.

Protocols are compared field by field, and a field by its words: rows on disk hold nothing else. A
test measures rows of every protocol and fails when their words no longer agree with the paper's
table. A measured value is

- marked † and never the best, where it differs from the table in a field, does not state one that
  the table states, or the table states none;
- marked ‡ and compared, where it agrees in all that the table states and the table leaves a field
  unknown;
- compared, where it agrees in everything.

Footnotes name the fields. A table without published rows has the protocol of its first row.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from clcae.evaluation.rows import Row
from clcae.tables.published import Column, PaperTable, PublishedRow
from clcae.tables.sheet import (
    AS_FAR_AS_KNOWN,
    DIFFERENT,
    PLUS_MINUS,
    Cell,
    Heading,
    Line,
    Mark,
    Sheet,
    Spread,
    plain,
)

DECIMALS = 3  # of a metric without a number of its own
_LONGEST = 1e9  # beyond, a number is written with an exponent
_OF_A_CURVE = re.compile(r" at \d/8$")
_FIELD_NAMES = {"num_images": "number of images"}


@dataclass(frozen=True)
class MeasuredRow:
    """A row with the place where it was found, in words; a mean has its values by metric."""

    row: Row
    source: str
    spreads: Mapping[str, Spread] = field(default_factory=dict)


@dataclass(frozen=True)
class Agreement:
    """How the protocol of a measured value compares with a table's.

    Args:
        differs: field -> (words of the row or None, words of the table).
        agrees: fields that both state alike.
        unknown: fields that the table names but does not know.
    """

    differs: Mapping[str, tuple[str | None, str]]
    agrees: tuple[str, ...]
    unknown: tuple[str, ...]


def compare(column: Column, fields: Mapping[str, str]) -> Agreement:
    """Compares the protocol of a measured value with a column's, field by field."""
    stated = {key: words for key, words in column.protocol.items() if words is not None}
    differs = {
        key: (fields.get(key), words) for key, words in stated.items() if fields.get(key) != words
    }
    # Where nothing is said of it, a method computed in float32.
    computed_in, expected = (words.get("precision", "float32") for words in (fields, stated))
    if computed_in != expected:
        differs["precision"] = (computed_in, expected)
    direction = fields.get("direction") or column.direction
    if direction != column.direction:
        differs["direction"] = (direction, column.direction)
    return Agreement(
        differs=differs,
        agrees=tuple(key for key in stated if key not in differs),
        unknown=tuple(key for key, words in column.protocol.items() if words is None),
    )


def protocol_fields(row: Row, metric: str, *, extra: bool = True) -> dict[str, str]:
    """Returns how a metric of a row was measured, field by field.

    With `extra`, texts of `row.extra`, such as images, count as fields.
    """
    of_metric = row.protocol.get(metric) if isinstance(row.protocol, Mapping) else None
    words: dict[Any, Any] = {}
    if extra and isinstance(row.extra, Mapping):
        words = {key: text for key, text in row.extra.items() if isinstance(text, str)}
    words["num_images"] = row.num_images
    words |= of_metric if isinstance(of_metric, Mapping) else {}
    return {plain(key): plain(text) for key, text in words.items()}


def metric_of(row: Row, column: Column) -> str | None:
    """Returns the name under which a row has a finite value for a column; None if it has none."""
    if column.minus and not math.isfinite(row.metrics.get(column.minus, math.nan)):
        return None
    for name in column.metrics:
        if math.isfinite(row.metrics.get(name, math.nan)):
            return name
    return None


def value_of(row: Row, column: Column, metric: str) -> float:
    """Computes the value of a column from the metric that `metric_of` found."""
    subtracted = row.metrics[column.minus] if column.minus else 0.0
    return (row.metrics[metric] - subtracted) * column.factor


def paper_sheet(table: PaperTable, measured: Sequence[MeasuredRow]) -> Sheet:
    """Lays out a table: its published rows, then the measured ones that have any of its metrics.

    The best of a column is taken from the published and the comparable measured values, if there
    are two; values that are equal at the column's decimals are all best.
    """
    measured = [m for m in measured if any(metric_of(m.row, c) for c in table.columns)]
    columns = [_with_protocol(column, table, measured) for column in table.columns]
    footnotes = _Footnotes(standard="the table's" if table.rows else "the first row's")
    lines = [_published_line(row, columns) for row in table.rows]
    lines += [_measured_line(m, columns, footnotes, apart=bool(table.rows)) for m in measured]
    words: tuple[str, ...] = ("method", "space", "source")
    if not measured:
        words = ("method", "source")
        lines = [replace(line, words=(line.words[0], line.words[2])) for line in lines]
    return Sheet(
        title=table.title,
        words=words,
        headings=tuple(Heading(c.name, c.direction) for c in columns),
        lines=_with_best(lines, columns),
        source=table.source,
        footnotes=footnotes.texts,
        notes=table.notes,
        protocol=tuple(f"{c.name}: {_in_words(c.protocol)}" for c in columns if c.protocol),
    )


def rows_sheet(
    rows: Sequence[Row], *, metrics: Sequence[str], decimals: Mapping[str, int]
) -> Sheet:
    """Lays out rows of one evaluation, the best value of each column marked.

    A column has the direction that the protocol of its metric states; without one it has no best.

    Numbers have `decimals` digits after the point by metric; three for the others.
    """

    def column(name: str) -> Column:
        stated = (row.protocol.get(name, {}).get("direction", "") for row in rows)
        direction = next(filter(None, stated), "")
        return Column(name, (name,), direction, decimals.get(name, DECIMALS), {})

    columns = [column(name) for name in metrics]
    lines = [
        Line(words=(row.method, row.space), cells=tuple(_cell(row, column) for column in columns))
        for row in rows
    ]
    headings = tuple(Heading(column.name, column.direction) for column in columns)
    return Sheet("", ("method", "space"), headings, _with_best(lines, columns))


def edit_sheets(
    rows: Sequence[Row], *, edits: Sequence[str], decimals: Mapping[str, int]
) -> list[Sheet]:
    """Lays out rows with a metric of each edit, "NAME EDIT": a sheet of means, and one of edits.

    The best values are those of the same edit. Values at an eighth of a range are for curves.
    """
    own = {f"{name} {edit}" for name in rows[0].metrics for edit in edits}
    names = [name for name in rows[0].metrics if name not in own and not _OF_A_CURVE.search(name)]
    means = rows_sheet(rows, metrics=names, decimals=decimals)
    names = [name for name in names if any(f"{name} {edit}" in rows[0].metrics for edit in edits)]
    each = rows_sheet(rows, metrics=names, decimals=decimals)
    lines: list[Line] = []
    for edit in edits:
        of_edit = [
            replace(
                row,
                metrics={name: row.metrics[f"{name} {edit}"] for name in names},
                space=f"{row.space}, {edit}",
            )
            for row in rows
        ]
        lines += rows_sheet(of_edit, metrics=names, decimals=decimals).lines
    return [means, replace(each, lines=tuple(lines))] if names else [means]


class _Footnotes:
    """Numbers footnotes by first appearance; values that compare alike share one."""

    def __init__(self, *, standard: str) -> None:
        self.standard = standard
        self._columns: dict[tuple[str, str], list[str]] = {}  # symbol, text -> columns

    def mark(self, column: Column, agreement: Agreement) -> Mark | None:
        """Returns the mark of a value; None where it agrees in everything."""
        note = self._note(agreement)
        if note is None:
            return None
        names = self._columns.setdefault(note, [])
        if column.name not in names:
            names.append(column.name)
        return Mark(note[0], list(self._columns).index(note) + 1)

    @property
    def texts(self) -> tuple[tuple[Mark, str], ...]:
        """The footnotes, in order."""
        return tuple(
            (Mark(symbol, number), f"{', '.join(names)}: {text}")
            for number, ((symbol, text), names) in enumerate(self._columns.items(), start=1)
        )

    def _note(self, agreement: Agreement) -> tuple[str, str] | None:
        unknown = f"; unknown of the table: {_listed(agreement.unknown)}"
        rest = unknown if agreement.unknown else ""
        if agreement.differs:
            said = [self._difference(key, *both) for key, both in agreement.differs.items()]
            return DIFFERENT, f"another protocol, not compared: {', '.join(said)}{rest}"
        if not agreement.agrees:
            return DIFFERENT, f"not compared: the table states nothing of its protocol{rest}"
        if agreement.unknown:
            return AS_FAR_AS_KNOWN, f"agrees in {_listed(agreement.agrees)}{rest}"
        return None

    def _difference(self, key: str, measured: str | None, stated: str) -> str:
        said = "not stated by the row" if measured is None else f"“{measured}”"
        return f"{_listed([key])} {said} ({self.standard}: “{stated}”)"


def _with_protocol(column: Column, table: PaperTable, measured: Sequence[MeasuredRow]) -> Column:
    """Gives a column the protocol of the first row where nothing is published."""
    if table.rows or column.protocol:
        return column
    for found in measured:
        if metric := metric_of(found.row, column):
            fields = protocol_fields(found.row, metric, extra=False)
            fields.pop("direction", None)
            return replace(column, protocol=fields)
    return column


def _published_line(row: PublishedRow, columns: Sequence[Column]) -> Line:
    remarks = ", ".join(part for part in (row.provenance, row.note) if part)
    filled = [c for c, value in zip(columns, row.values, strict=True) if value is not None]
    return Line(
        words=(row.method, "", f"published ({remarks})" if remarks else "published"),
        cells=tuple(map(_published_cell, row.values)),
        protocol={column.name: dict(column.protocol) for column in filled},
    )


def _published_cell(value: Decimal | None) -> Cell:
    return Cell() if value is None else Cell(f"{value:f}", f"{value:f}", float(value))


def _measured_line(
    measured: MeasuredRow, columns: Sequence[Column], footnotes: _Footnotes, *, apart: bool
) -> Line:
    row, cells, protocol, differs = measured.row, list[Cell](), {}, {}
    for column in columns:
        cell, metric = _cell(row, column, measured.spreads), metric_of(row, column)
        if metric is not None:
            fields = protocol[column.name] = protocol_fields(row, metric)
            agreement = compare(column, fields)
            cell = replace(cell, mark=footnotes.mark(column, agreement))
            if agreement.differs:
                differs[column.name] = dict(agreement.differs)
        cells.append(cell)
    words = (plain(row.method), plain(row.space), plain(measured.source))
    return Line(words, tuple(cells), apart, protocol, differs)


def _cell(row: Row, column: Column, spreads: Mapping[str, Spread] | None = None) -> Cell:
    """Formats the value of a row for a column; empty if the row has none."""
    metric = metric_of(row, column)
    if metric is None:
        return Cell()
    value = value_of(row, column, metric)
    text = f"{value:.{column.decimals}f}" if abs(value) < _LONGEST else f"{value:.3e}"
    exact = f"{value:.12g}"
    spread, deviation = (spreads or {}).get(metric), 0.0
    if spread is not None and len(spread.values) > 1:
        deviation = spread.deviation
        text += f"{PLUS_MINUS}{deviation:.{column.decimals}f}"
        exact += f"{PLUS_MINUS}{deviation:.12g}"
    return Cell(text=text, exact=exact, value=value, deviation=deviation)


def _with_best(lines: Sequence[Line], columns: Sequence[Column]) -> tuple[Line, ...]:
    """Marks the best of every column, as its numbers are read, among those that are comparable."""
    cells = [list(line.cells) for line in lines]
    for index, column in enumerate(columns):
        shown = {
            number: Decimal(line[index].text.split(PLUS_MINUS)[0])
            for number, line in enumerate(cells)
            if line[index].text and not ((mark := line[index].mark) and mark.symbol == DIFFERENT)
        }
        if len(shown) < 2 or not column.direction:  # a single value is not better than anything
            continue
        best = max(shown.values()) if column.direction == "higher" else min(shown.values())
        for number, value in shown.items():
            if value == best:
                cells[number][index] = replace(cells[number][index], best=True)
    return tuple(replace(line, cells=tuple(c)) for line, c in zip(lines, cells, strict=True))


def _in_words(protocol: Mapping[str, str | None]) -> str:
    stated = [f"{_listed([key])} {words}" for key, words in protocol.items() if words is not None]
    unknown = [key for key, words in protocol.items() if words is None]
    return "; ".join([*stated, *([f"unknown: {_listed(unknown)}"] if unknown else [])])


def _listed(keys: Sequence[str]) -> str:
    """Lists fields of a protocol by their names in a sentence."""
    return ", ".join(_FIELD_NAMES.get(key, key) for key in keys)
