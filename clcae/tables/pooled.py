"""Rows of several seeds and lists of images put together: one line a method and space.

A column takes its values from the rows of its own list of images, one a seed, and shows their mean
and spread. Only values of one protocol are averaged: that of the latest row; of what was measured
otherwise a note says how much was left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from clcae.evaluation.rows import Row
from clcae.tables.comparison import MeasuredRow, metric_of, protocol_fields
from clcae.tables.published import Column, PaperTable
from clcae.tables.seeds import Spread

Runs = Mapping[str, Row]  # seed, "" without one -> the latest row


def put_together(
    table: PaperTable, measured: Sequence[MeasuredRow]
) -> tuple[PaperTable, list[MeasuredRow]]:
    """A table whose columns may be of different lists, and its rows.

    Args:
        table: Its columns say under `protocol` of which `images` they are.
        measured: Rows, later ones in place of earlier ones of the same run and list.

    Returns:
        The table with the notes of what was left out, its columns without a protocol of their own,
        so that the first row's holds; and a row for each method and space.
    """
    found: dict[tuple[str, str], dict[str | None, dict[str, Row]]] = {}
    for one in measured:
        lists = found.setdefault((one.row.method, one.row.space), {})
        images, seed = protocol_fields(one.row, "").get("images"), _seed(one.row)
        runs = lists.setdefault(images, {})
        runs.pop(seed, None)  # the latest is the last
        runs[seed] = one.row
    notes = list[str]()
    rows = [
        _line(method, space, lists, table.columns, notes)
        for (method, space), lists in found.items()
    ]
    columns = tuple(
        replace(column, metrics=(column.name,), factor=1.0, protocol={}) for column in table.columns
    )
    notes = list(dict.fromkeys(notes))
    return replace(table, columns=columns, notes=(*table.notes, *notes)), rows


def _line(
    method: str,
    space: str,
    lists: Mapping[str | None, Runs],
    columns: Sequence[Column],
    notes: list[str],
) -> MeasuredRow:
    spreads, protocol, seeds = {}, {}, set[str]()
    for column in columns:
        runs = lists.get(column.protocol.get("images"), {})
        fields = {
            seed: _fields(row, metric)
            for seed, row in runs.items()
            if (metric := metric_of(row, column)) is not None
        }
        if not fields:
            continue
        latest = list(fields.values())[-1]
        same = sorted(seed for seed, said in fields.items() if said == latest)
        if left := len(fields) - len(same):
            notes.append(f"{method}, {space}: {left} of {len(fields)} runs were measured otherwise")
        values = [runs[seed].metrics[metric_of(runs[seed], column) or ""] for seed in same]
        spreads[column.name] = Spread(tuple(value * column.factor for value in values))
        protocol[column.name] = latest
        seeds |= {*same}
    named = sorted(seed for seed in seeds if seed)
    row = Row(
        method=method,
        space=space,
        metrics={name: spread.mean for name, spread in spreads.items()},
        protocol=protocol,
        num_images=0,  # every column says its own
    )
    source = f"seed{'s' * (len(named) > 1)} {', '.join(named)}" if named else "no training"
    return MeasuredRow(row, source, spreads)


def _fields(row: Row, metric: str) -> dict[str, str]:
    """How it was measured, of which images and how many."""
    said = protocol_fields(replace(row, extra={}), metric)
    return {**said, "images": protocol_fields(row, "").get("images", "")}


def _seed(row: Row) -> str:
    seed = row.extra.get("seed") if isinstance(row.extra, Mapping) else None
    return "" if seed is None else str(seed)
