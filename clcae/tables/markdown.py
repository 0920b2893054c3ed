"""Tables of rows in Markdown, the best value of each column in bold."""

import math
from collections.abc import Mapping, Sequence

from clcae.evaluation.rows import Row

DEFAULT_DECIMALS = 3
_ARROWS = {"higher": "↑", "lower": "↓"}


def markdown_table(
    rows: Sequence[Row],
    *,
    metrics: Sequence[str] | None = None,
    decimals: Mapping[str, int] | None = None,
) -> str:
    """Draw rows as a Markdown table.

    The direction of a column is that of the protocol of its metric; what looks best at the
    decimals shown is bold, ties included. A column without a direction has no best.

    Args:
        rows: Rows, one per line of the table, in order.
        metrics: Columns in order; None takes every metric, in the order of first appearance.
        decimals: Digits after the point of a metric; those left out have three.

    Returns:
        The table, ending in a line break. A value that is missing or NaN is drawn as "-".

    Raises:
        ValueError: If there are no rows, no row has a metric asked for, or rows disagree on the
            direction of a metric.
    """
    if not rows:
        raise ValueError("a table needs at least one row")
    known = list(dict.fromkeys(name for row in rows for name in row.metrics))
    unknown = [name for name in metrics or () if name not in known]
    if unknown:
        raise ValueError(f"no row has {', '.join(unknown)}; they have {', '.join(known)}")
    columns = list(metrics) if metrics is not None else known
    directions = {name: _direction(rows, name) for name in columns}
    headings = ["method", "space"]
    headings += [f"{name} {_ARROWS.get(directions[name], '')}".strip() for name in columns]
    cells = [[_escaped(row.method), _escaped(row.space)] for row in rows]
    for name in columns:
        places = (decimals or {}).get(name, DEFAULT_DECIMALS)
        for line, text in zip(cells, _column(rows, name, places, directions[name]), strict=True):
            line.append(text)
    rule = ["---", "---", *["---:"] * len(columns)]
    lines = [[_escaped(heading) for heading in headings], rule, *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _column(rows: Sequence[Row], name: str, places: int, direction: str) -> list[str]:
    """Cells of one metric, the best in bold."""
    values = [round(row.metrics.get(name, math.nan), places) for row in rows]
    comparable = [value for value in values if not math.isnan(value)]
    best = math.nan
    # A single value is not better than anything.
    if len(comparable) > 1 and direction:
        best = max(comparable) if direction == "higher" else min(comparable)
    texts = ["-" if math.isnan(value) else f"{value:.{places}f}" for value in values]
    return [
        f"**{text}**" if value == best else text for value, text in zip(values, texts, strict=True)
    ]


def _direction(rows: Sequence[Row], name: str) -> str:
    directions = {row.protocol.get(name, {}).get("direction", "") for row in rows} - {""}
    if len(directions) > 1 or not directions <= _ARROWS.keys():
        raise ValueError(f"directions of {name} are {sorted(directions)}: expected one")
    return next(iter(directions), "")


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
