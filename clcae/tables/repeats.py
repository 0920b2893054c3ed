"""Tables of runs repeated under several seeds, as sheets: spread, and paired differences."""

import re
from collections.abc import Mapping
from pathlib import Path

from clcae.evaluation.rows import read_rows
from clcae.tables.seeds import Runs, Spread, difference, spaces, spread
from clcae.tables.sheet import Cell, Heading, Line, Sheet


def seeded_runs(folder: Path, pattern: str) -> Runs:
    """seed -> rows of every finished run whose folder fits the pattern and ends in seedN."""
    runs = {}
    for path in sorted(folder.glob(f"{pattern}/table.json")):
        match = re.search(r"seed(\d+)$", path.parent.name)
        if match:
            runs[match[1]] = read_rows(path)
    return runs


def spread_sheet(
    found: Mapping[str, Runs],
    *,
    title: str,
    names: Mapping[str, str],
    decimals: Mapping[str, int],
) -> Sheet:
    """Mean and deviation of every variant in every space.

    Args:
        found: Variant -> its runs.
        title: Of the sheet.
        names: Variant -> what the table calls it.
        decimals: Metric -> digits after the point; the columns in order.
    """
    lines = []
    for variant, runs in found.items():
        for space in spaces(runs):
            count = str(len(runs))
            cells = [Cell(text=count, exact=count, value=len(runs))]
            cells += [
                _cell(spread(runs, space=space, metric=metric), places, signed=False)
                for metric, places in decimals.items()
            ]
            lines.append(Line(words=(names[variant], space), cells=tuple(cells)))
    headings = tuple(map(Heading, ("seeds", *decimals)))
    return Sheet(title=title, words=("method", "space"), headings=headings, lines=tuple(lines))


def difference_sheet(
    found: Mapping[str, Runs],
    *,
    reference: str,
    names: Mapping[str, str],
    decimals: Mapping[str, int],
) -> Sheet:
    """Every variant minus the reference of the same seed. Arguments as `spread_sheet`."""
    lines = []
    for variant, runs in found.items():
        if variant == reference:
            continue
        for space in spaces(runs):
            cells = [
                _cell(
                    difference(runs, found[reference], space=space, metric=metric),
                    places,
                    signed=True,
                )
                for metric, places in decimals.items()
            ]
            lines.append(Line(words=(names[variant], space), cells=tuple(cells)))
    return Sheet(
        title=f"Difference from {names[reference]} of the same seed",
        words=("method", "space"),
        headings=tuple(map(Heading, decimals)),
        lines=tuple(lines),
    )


def _cell(values: Spread, decimals: int, *, signed: bool) -> Cell:
    text = values.text(decimals, signed=signed)
    return Cell(text=text, exact=text, value=values.mean)
