"""Tables of runs repeated with several seeds: mean and spread, and differences paired by seed."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from clcae.evaluation.rows import Row, read_rows
from clcae.tables.sheet import Cell, Heading, Line, Sheet, Spread

Runs = Mapping[str, Sequence[Row]]  # seed -> the rows of its run


def seeded_runs(folder: Path, pattern: str) -> Runs:
    """Reads the rows of every finished run whose folder fits the pattern and ends in seedN."""
    runs = {}
    for path in sorted(folder.glob(f"{pattern}/table.json")):
        match = re.search(r"seed(\d+)$", path.parent.name)
        if match:
            runs[match[1]] = read_rows(path)
    return runs


def spread_sheet(
    found: Mapping[str, Runs], *, title: str, names: Mapping[str, str], decimals: Mapping[str, int]
) -> Sheet:
    """Lays out mean and deviation of every variant in every space.

    Args:
        found: variant -> its runs.
        title: title of the table.
        names: variant -> its name in the table.
        decimals: metric -> digits after the point; the columns in order.

    Raises:
        ValueError: if the runs of a variant have different spaces or numbers of images.
    """
    lines = []
    for variant, runs in found.items():
        count = Cell(text=str(len(runs)), exact=str(len(runs)), value=len(runs))
        for space in _spaces(runs):
            values = {
                metric: [_value(runs[seed], space, metric) for seed in sorted(runs)]
                for metric in decimals
            }
            cells = _cells(values, decimals)
            lines.append(Line(words=(names[variant], space), cells=(count, *cells)))
    headings = tuple(map(Heading, ("seeds", *decimals)))
    return Sheet(title=title, words=("method", "space"), headings=headings, lines=tuple(lines))


def difference_sheet(
    found: Mapping[str, Runs],
    *,
    reference: str,
    names: Mapping[str, str],
    decimals: Mapping[str, int],
) -> Sheet:
    """Lays out every variant minus the reference of the same seed.

    Raises:
        ValueError: if a variant has no seed in common with the reference.
    """
    lines, others = [], found[reference]
    for variant, runs in found.items():
        if variant == reference:
            continue
        shared = sorted(runs.keys() & others.keys())
        if not shared:
            raise ValueError(f"seeds {sorted(runs)} and {sorted(others)} have none in common")
        for space in _spaces(runs):
            values = {
                metric: [
                    _value(runs[seed], space, metric) - _value(others[seed], space, metric)
                    for seed in shared
                ]
                for metric in decimals
            }
            cells = _cells(values, decimals, sign="+")
            lines.append(Line(words=(names[variant], space), cells=cells))
    return Sheet(
        title=f"Difference from {names[reference]} of the same seed",
        words=("method", "space"),
        headings=tuple(map(Heading, decimals)),
        lines=tuple(lines),
    )


def _cells(
    values: Mapping[str, Sequence[float]], decimals: Mapping[str, int], sign: str = ""
) -> tuple[Cell, ...]:
    cells = []
    for metric, of_seeds in values.items():
        spread = Spread(tuple(of_seeds))
        text = spread.text(f"{sign}.{decimals[metric]}f")
        cells.append(Cell(text=text, exact=text, value=spread.mean))
    return tuple(cells)


def _spaces(runs: Runs) -> list[str]:
    """Returns the spaces of the runs, after checking that all have the same."""
    found = {tuple(row.space for row in rows) for rows in runs.values()}
    counts = {row.num_images for rows in runs.values() for row in rows}
    if len(found) != 1 or len(counts) != 1:
        raise ValueError(
            f"the runs have spaces {sorted(found)} and {sorted(counts)} images, expected the same "
            "of all"
        )
    return list(found.pop())


def _value(rows: Sequence[Row], space: str, metric: str) -> float:
    row = next((row for row in rows if row.space == space), None)
    if row is None:
        spaces = ", ".join(row.space for row in rows)
        raise ValueError(f"there is no row of {space}, only of {spaces}")
    if metric not in row.metrics:
        known = ", ".join(row.metrics)
        raise ValueError(f"{row.method} in {space} has no {metric}, it has {known}")
    return row.metrics[metric]
