"""Published and measured rows in one table, compared only where their protocols agree.

Three cases for a measured value. It differs from the table's protocol in a field that the table
states, or does not say how it was measured there: it is marked † and is never the best. It agrees
in every field that the table states, and the table leaves others unknown: it is compared, and
marked ‡. It agrees in all: it is compared. Every mark leads to a footnote that names the fields.

A table without published rows has the protocol of its first row.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from clcae.evaluation.rows import Row
from clcae.tables.published import Column, PaperTable, PublishedRow
from clcae.tables.seeds import Spread
from clcae.tables.sheet import (
    AS_FAR_AS_KNOWN,
    DIFFERENT,
    Cell,
    Heading,
    Line,
    Mark,
    Sheet,
    plain,
)

_LONGEST = 1e9  # beyond, a number is written with an exponent
_PLUS_MINUS = " ± "
_FIELD_NAMES = {"num_images": "number of images"}


@dataclass(frozen=True)
class MeasuredRow:
    """A row and where it was found, in words; of a mean the values by metric."""

    row: Row
    source: str
    spreads: Mapping[str, Spread] = field(default_factory=dict)


@dataclass(frozen=True)
class Agreement:
    """How a measured value's protocol compares with a table's.

    Args:
        differs: Field -> what the row says of it, None where it says nothing, and the table.
        agrees: Fields that both state alike.
        unknown: Fields that the table has and nobody knows.
    """

    differs: Mapping[str, tuple[str | None, str]]
    agrees: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def comparable(self) -> bool:
        """Whether the values may stand in one column: something is stated, nothing differs."""
        return bool(self.agrees) and not self.differs


def compare(column: Column, fields: Mapping[str, str]) -> Agreement:
    """Compares the protocol of a measured value with a column's, field by field, word by word."""
    stated = {key: words for key, words in column.protocol.items() if words is not None}
    differs = {
        key: (fields.get(key), words) for key, words in stated.items() if fields.get(key) != words
    }
    direction = fields.get("direction", column.direction)
    if direction != column.direction:
        differs["direction"] = (direction, column.direction)
    return Agreement(
        differs=differs,
        agrees=tuple(key for key in stated if key not in differs),
        unknown=tuple(key for key, words in column.protocol.items() if words is None),
    )


def protocol_fields(row: Row, metric: str) -> dict[str, str]:
    """All that a row says of how a metric was measured; its `extra` words too, such as images."""
    extra = row.extra if isinstance(row.extra, Mapping) else {}
    of_metric = row.protocol.get(metric) if isinstance(row.protocol, Mapping) else None
    words: dict[Any, Any] = {key: text for key, text in extra.items() if isinstance(text, str)}
    words["num_images"] = row.num_images
    words |= of_metric if isinstance(of_metric, Mapping) else {}
    return {plain(key): plain(text) for key, text in words.items()}


def metric_of(row: Row, column: Column) -> str | None:
    """The name under which a row has a finite value for a column."""
    for name in column.metrics:
        if math.isfinite(row.metrics.get(name, math.nan)):
            return name
    return None


def paper_sheet(table: PaperTable, measured: Sequence[MeasuredRow]) -> Sheet:
    """A table with its published rows, then the measured ones that have any of its metrics.

    Args:
        table: The table.
        measured: Rows measured here, in order.

    Returns:
        The sheet. The best of a column, ties at its decimals included, is taken from the published
        and the comparable measured values, if there are two.
    """
    measured = [m for m in measured if any(metric_of(m.row, c) for c in table.columns)]
    columns = [_with_protocol(column, table, measured) for column in table.columns]
    footnotes = _Footnotes(standard="the table's" if table.rows else "the first row's")
    agreements = [[_agreement(m.row, column) for column in columns] for m in measured]
    for line in agreements:
        for column, agreement in zip(columns, line, strict=True):
            if agreement is not None:
                footnotes.add(column, agreement)
    published = [[_published_cell(value) for value in row.values] for row in table.rows]
    drawn = [
        [_measured_cell(m, c, a, footnotes) for c, a in zip(columns, line, strict=True)]
        for m, line in zip(measured, agreements, strict=True)
    ]
    counted = [[a is not None and a.comparable for a in line] for line in agreements]
    counted = [[True] * len(columns)] * len(published) + counted
    cells = _with_best([*published, *drawn], counted, columns)
    lines = [
        _published_line(row, columns, line)
        for row, line in zip(table.rows, cells[: len(published)], strict=True)
    ]
    lines += [
        _measured_line(m, columns, line, found, apart=bool(table.rows))
        for m, line, found in zip(measured, cells[len(lines) :], agreements, strict=True)
    ]
    return Sheet(
        title=table.title,
        words=("method", "space", "source") if measured else ("method", "source"),
        headings=tuple(Heading(c.name, c.direction) for c in columns),
        lines=tuple(lines if measured else _without_space(lines)),
        source=table.source,
        footnotes=footnotes.texts,
        notes=table.notes,
        protocol=tuple(f"{c.name}: {_in_words(c.protocol)}" for c in columns if c.protocol),
    )


class _Footnotes:
    """One footnote for all values that compare alike, numbered by first appearance."""

    def __init__(self, *, standard: str) -> None:
        self.standard = standard
        self._columns: dict[tuple[str, str], list[str]] = {}

    def add(self, column: Column, agreement: Agreement) -> None:
        """Counts a value."""
        if key := self._key(agreement):
            names = self._columns.setdefault(key, [])
            if column.name not in names:
                names.append(column.name)

    def mark(self, agreement: Agreement) -> Mark | None:
        """The mark of a value that was added."""
        key = self._key(agreement)
        return None if key is None else Mark(key[0], list(self._columns).index(key) + 1)

    @property
    def texts(self) -> tuple[tuple[Mark, str], ...]:
        """The footnotes."""
        return tuple(
            (Mark(symbol, number), f"{', '.join(names)}: {text}")
            for number, ((symbol, text), names) in enumerate(self._columns.items(), start=1)
        )

    def _key(self, agreement: Agreement) -> tuple[str, str] | None:
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
    """The column itself, or with the protocol of the first row where nothing is published."""
    if table.rows or column.protocol:
        return column
    for found in measured:
        if metric := metric_of(found.row, column):
            fields = protocol_fields(replace(found.row, extra={}), metric)
            fields.pop("direction", None)
            return replace(column, protocol=fields)
    return column


def _agreement(row: Row, column: Column) -> Agreement | None:
    metric = metric_of(row, column)
    return None if metric is None else compare(column, protocol_fields(row, metric))


def _published_cell(value: Decimal | None) -> Cell:
    if value is None:
        return Cell()
    return Cell(text=f"{value:f}", exact=f"{value:f}", value=float(value))


def _measured_cell(
    measured: MeasuredRow, column: Column, agreement: Agreement | None, footnotes: _Footnotes
) -> Cell:
    metric = metric_of(measured.row, column)
    if metric is None or agreement is None:
        return Cell()
    mark = footnotes.mark(agreement)
    value = measured.row.metrics[metric] * column.factor
    text = f"{value:.{column.decimals}f}" if abs(value) < _LONGEST else f"{value:.3e}"
    spread = measured.spreads.get(metric)
    if spread is not None and len(spread.values) > 1:
        text += f"{_PLUS_MINUS}{spread.deviation:.{column.decimals}f}"
        exact = f"{value:.12g}{_PLUS_MINUS}{spread.deviation:.12g}"
        return Cell(text=text, exact=exact, value=value, mark=mark)
    return Cell(text=text, exact=f"{value:.12g}", value=value, mark=mark)


def _with_best(
    cells: Sequence[Sequence[Cell]],
    counted: Sequence[Sequence[bool]],
    columns: Sequence[Column],
) -> list[list[Cell]]:
    """The cells with the best of every column marked, ties as they are read."""
    result = [list(line) for line in cells]
    for index, column in enumerate(columns):
        shown = {
            number: Decimal(line[index].text.split(_PLUS_MINUS)[0])
            for number, line in enumerate(cells)
            if line[index].text and counted[number][index]
        }
        if len(shown) < 2:  # a single value is not better than anything
            continue
        best = max(shown.values()) if column.direction == "higher" else min(shown.values())
        for number, value in shown.items():
            if value == best:
                result[number][index] = replace(result[number][index], best=True)
    return result


def _published_line(row: PublishedRow, columns: Sequence[Column], cells: Sequence[Cell]) -> Line:
    remarks = ", ".join(part for part in (row.provenance, row.note) if part)
    filled = [column for column, cell in zip(columns, cells, strict=True) if cell.text]
    return Line(
        words=(row.method, "", f"published ({remarks})" if remarks else "published"),
        cells=tuple(cells),
        protocol={column.name: dict(column.protocol) for column in filled},
    )


def _measured_line(
    measured: MeasuredRow,
    columns: Sequence[Column],
    cells: Sequence[Cell],
    agreements: Sequence[Agreement | None],
    *,
    apart: bool,
) -> Line:
    row = measured.row
    protocol, differs = {}, {}
    for column, agreement in zip(columns, agreements, strict=True):
        if agreement is None:
            continue
        protocol[column.name] = protocol_fields(row, metric_of(row, column) or "")
        if agreement.differs:
            differs[column.name] = dict(agreement.differs)
    return Line(
        words=(plain(row.method), plain(row.space), plain(measured.source)),
        cells=tuple(cells),
        measured=apart,
        protocol=protocol,
        differs=differs,
    )


def _without_space(lines: Sequence[Line]) -> list[Line]:
    return [replace(line, words=(line.words[0], line.words[2])) for line in lines]


def _in_words(protocol: Mapping[str, str | None]) -> str:
    stated = [f"{_listed([key])} {words}" for key, words in protocol.items() if words is not None]
    unknown = [key for key, words in protocol.items() if words is None]
    return "; ".join([*stated, *([f"unknown: {_listed(unknown)}"] if unknown else [])])


def _listed(keys: Sequence[str]) -> str:
    """Fields of a protocol, as they are called in a sentence."""
    return ", ".join(_FIELD_NAMES.get(key, key) for key in keys)
