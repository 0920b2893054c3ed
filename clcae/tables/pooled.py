"""Pools rows of several seeds and lists of images: one line a method and space.

A column takes its values from the rows of its own list of images, one a seed, and shows their mean
and spread. Only values of one protocol are averaged, that of the latest row; a note says how many
were measured otherwise and left out. Rows of run folders become such rows by their folders' names.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from clcae.evaluation.rows import Row, read_rows
from clcae.tables.comparison import MeasuredRow, metric_of, protocol_fields, value_of
from clcae.tables.published import Column, PaperTable
from clcae.tables.sheet import Spread

Runs = Mapping[str, Row]  # seed, "" without one -> the latest row


def repeated_rows(table: PaperTable, folder: Path) -> list[MeasuredRow]:
    """Reads the rows of every finished run of a table's variants, in folders that end in seedN."""
    found = []
    for variant, method in table.variants.items():
        for path in sorted(folder.glob(f"{str(table.runs).format(variant=variant)}/table.json")):
            if match := re.search(r"seed(\d+)$", path.parent.name):
                found += [
                    MeasuredRow(replace(row, method=method, extra={"seed": match[1]}), str(path))
                    for row in read_rows(path)
                ]
    return found


def differences(measured: Sequence[MeasuredRow], *, reference: str) -> list[MeasuredRow]:
    """Subtracts from every row the reference's row of the same seed and space.

    Rows without such a partner are left out.
    """
    partners = {
        (one.row.space, one.row.extra["seed"]): one.row.metrics
        for one in measured
        if one.row.method == reference
    }
    result = []
    for one in measured:
        partner = partners.get((one.row.space, one.row.extra["seed"]))
        if partner is not None and one.row.method != reference:
            shared = one.row.metrics.keys() & partner.keys()
            metrics = {name: one.row.metrics[name] - partner[name] for name in shared}
            result.append(replace(one, row=replace(one.row, metrics=metrics)))
    return result


def put_together(
    table: PaperTable, measured: Sequence[MeasuredRow]
) -> tuple[PaperTable, list[MeasuredRow]]:
    """Pools rows by method and space, for a table whose columns may be of different lists.

    `protocol.images` of a column names its list; a later row replaces an earlier one of the same
    run and list. What computed in bfloat16 is a method of its own. The table comes back with notes
    of what was left out, and its columns without a protocol of their own, so that the first row's
    holds.
    """
    found: dict[tuple[str, str], dict[str | None, dict[str, Row]]] = {}
    for one in measured:
        lists = found.setdefault((_method(one.row), one.row.space), {})
        runs = lists.setdefault(_images(one.row), {})
        runs.pop(seed := _seed(one.row), None)  # so that the latest is the last
        runs[seed] = one.row
    notes = list[str]()
    rows = [_pooled(*key, lists, table.columns, notes) for key, lists in found.items()]
    columns = tuple(
        replace(column, metrics=(column.name,), factor=1.0, minus="", protocol={})
        for column in table.columns
    )
    return replace(table, columns=columns, notes=(*table.notes, *dict.fromkeys(notes))), rows


def curves_of(
    rows: Sequence[Row], *, images: str | None = None, begin: Sequence[str] = ()
) -> list[Row]:
    """Chooses rows of curves, and takes the mean of those that differ in the seed alone.

    Args:
        rows: in the order of the curves; a later row replaces an earlier one of the same seed.
        images: list of images whose rows are taken; None is all.
        begin: how "METHOD SPACE" of the rows taken may begin; () is anyhow.

    Raises:
        ValueError: if no row is chosen, or seeds were measured otherwise.
    """
    found: dict[tuple[str, str, str | None], dict[str, Row]] = {}
    for row in rows:
        named = f"{_method(row)} {row.space}".startswith(tuple(begin) or "")
        if named and images in (None, _images(row)):
            found.setdefault((_method(row), row.space, _images(row)), {})[_seed(row)] = row
    if rows and not found:
        lists = sorted({str(_images(row)) for row in rows})
        names = dict.fromkeys(f"{_method(row)} {row.space}" for row in rows)
        raise ValueError(f"no such row: of {', '.join(lists)} there are {', '.join(names)}")
    chosen = []
    for (method, space, _), runs in found.items():
        one, *others = runs.values()
        if any(_measured(other) != _measured(one) for other in others):
            seeds = ", ".join(runs)
            raise ValueError(f"{method} {space}: seeds {seeds} were not measured alike: no mean")
        metrics = {
            name: fmean(row.metrics[name] for row in runs.values())
            for name in one.metrics
            if all(name in other.metrics for other in others)
        }
        chosen.append(replace(one, method=method, metrics=metrics))
    return chosen


def _measured(row: Row) -> tuple[int, dict[str, Mapping[str, str]]]:
    """Returns how a row was measured, but for its times, which are of a machine."""
    said = {name: fields for name, fields in row.protocol.items() if "device" not in fields}
    return row.num_images, said


def _pooled(
    method: str,
    space: str,
    lists: Mapping[str | None, Runs],
    columns: Sequence[Column],
    notes: list[str],
) -> MeasuredRow:
    spreads, protocol, seeds = {}, {}, set[str]()
    for column in columns:
        runs = lists.get(column.protocol.get("images"), {})
        metrics = {seed: name for seed, row in runs.items() if (name := metric_of(row, column))}
        if not metrics:
            continue
        fields = {
            seed: protocol_fields(runs[seed], name, extra=False)
            | ({"images": images} if (images := _images(runs[seed])) else {})
            for seed, name in metrics.items()
        }
        latest = list(fields.values())[-1]
        same = sorted(seed for seed, said in fields.items() if said == latest)
        if left := len(fields) - len(same):
            notes.append(f"{method}, {space}: {left} of {len(fields)} runs were measured otherwise")
        values = (value_of(runs[seed], column, metrics[seed]) for seed in same)
        spreads[column.name], protocol[column.name] = Spread(tuple(values)), latest
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


def _method(row: Row) -> str:
    precision = row.extra.get("precision") if isinstance(row.extra, Mapping) else None
    return row.method if precision in (None, "float32") else f"{row.method}, {precision}"


def _images(row: Row) -> str | None:
    return protocol_fields(row, "").get("images")


def _seed(row: Row) -> str:
    seed = row.extra.get("seed") if isinstance(row.extra, Mapping) else None
    return "" if seed is None else str(seed)
