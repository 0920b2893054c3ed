"""Draws figures of tables: distortion against editability, and curves over an edit's strength.

Needs matplotlib (`pip install -e '.[eval]'`), which nothing else imports. Text is drawn as it is,
never read as a formula.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clcae.evaluation.rows import Row
from clcae.files import replacing
from clcae.quoting import one_line, parse_json
from clcae.tables.sheet import ARROWS, Sheet, plain

SUFFIXES = (".png", ".svg")
_INK, _PUBLISHED, _MEASURED = "#1d2127", "#2f6db3", "#c2410c"
_MARKERS = "osv^DPX*"
_LETTERS = 12.5  # of a legend in an inch
_Point = tuple[float, float]
_OF_CEILINGS = ("ceiling change", "ceiling perceptual changed")
_OF_CURVES = (
    *("true change", "unedited perceptual changed"),
    *(
        f"{metric} at {part}/8"
        for metric in ("change", "perceptual changed")
        for part in range(1, 9)
    ),
)


@dataclass(frozen=True)
class Point:
    """One method of a figure."""

    name: str
    x: float  # distortion
    y: float  # editability
    measured: bool = False
    comparable: bool = True
    deviations: tuple[float, float] = (0.0, 0.0)  # of x and y over seeds


def points_of(sheet: Sheet, axes: tuple[str, str]) -> list[Point]:
    """Collects the lines that have both columns, with whether their protocols are the table's."""
    names = [heading.name for heading in sheet.headings]
    columns = [names.index(axis) for axis in axes]
    published = any(line.measured for line in sheet.lines)  # then the others are
    points = []
    for line in sheet.lines:
        x, y = (line.cells[column] for column in columns)
        if x.value is None or y.value is None:
            continue
        differs = any(line.differs.get(axis) for axis in axes)
        space = line.words[1] if line.measured or not published else ""
        label = f"{line.words[0]} {space if 'space' in sheet.words else ''}".strip()
        deviations = (x.deviation, y.deviation)
        points.append(Point(label, x.value, y.value, line.measured, not differs, deviations))
    return points


def tradeoff(sheet: Sheet, axes: Mapping[str, str]) -> Any:
    """Draws editability and perception over distortion, a panel each, bars for the deviations.

    Measured methods have another colour, and are hollow if not comparable. `axes` are columns by
    what they stand for, as `PaperTable.axes`; the sheet says which way is better.

    Raises:
        ValueError: if there is no point.
        ImportError: if matplotlib is not installed.
    """
    distortion, *others = axes
    figure, panels = _figure(len(others))
    arrows = {heading.name: ARROWS.get(heading.direction, "") for heading in sheet.headings}
    for panel, other in zip(panels, others, strict=True):
        x, y = axes[distortion], axes[other]
        points = points_of(sheet, (x, y))
        if not points:
            raise ValueError(f"no row has both {x} and {y}: nothing to draw")
        for point in points:
            colour = _MEASURED if point.measured else _PUBLISHED
            panel.errorbar(
                [point.x],
                [point.y],
                xerr=[point.deviations[0]] if any(point.deviations) else None,
                yerr=[point.deviations[1]] if any(point.deviations) else None,
                marker="D" if point.measured else "o",
                color=colour,
                markerfacecolor=colour if point.comparable else "none",
                linestyle="none",
                linewidth=1,
            )
        panel.set_xlabel(f"{distortion}: {x} {arrows[x]}", parse_math=False)
        panel.set_ylabel(f"{other}: {y} {arrows[y]}", parse_math=False)
        panel.margins(x=0.12 if len(others) == 1 else 0.4, y=0.12)  # names need room
        _label(panel, points)
    return figure


def strength_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    *,
    quantity: str,
) -> Any:
    """Draws curves over the strength of an edit.

    Curves are name -> (strength, value) in any order; NaN leaves a gap.

    Raises:
        ValueError: if there is no curve, or one has no point.
        ImportError: if matplotlib is not installed.
    """
    if not curves or not all(curves.values()):
        raise ValueError(f"{len(curves)} curves of {quantity}, or one without points: no figure")
    figure, (panel,) = _figure(1)
    drawn = []
    for index, points in enumerate(curves.values()):
        strengths, values = zip(*sorted(points), strict=True)
        marker = _MARKERS[index % len(_MARKERS)]
        drawn += panel.plot(strengths, values, marker=marker, markersize=4)
    panel.set_xlabel("strength")
    panel.set_ylabel(quantity, parse_math=False)
    panel.grid(alpha=0.25)
    # Names come later: the legend would leave out those that begin with "_", and read formulas.
    legend = panel.legend(drawn, [" "] * len(drawn), frameon=False, labelcolor=_INK)
    for text, name in zip(legend.get_texts(), curves, strict=True):
        text.set_parse_math(False)
        text.set_text(name)
    return figure


def true_edit_curves(rows: Sequence[Row], *, edits: Sequence[str]) -> Any:
    """Draws how far edits are from the true ones while they grow, a panel for each edit.

    Of the perceptual distance where the true edit changes pixels, over the judged change as a share
    of the true one. The dashed line is the true change; squares are the ceilings. What has no value
    is left out.

    Args:
        rows: of protocol true_edits_curve or true_edits_far, a curve each.
        edits: a panel each, if a row has it; "" is the mean over all.

    Raises:
        ValueError: if there is no row, or one is of another protocol.
        ImportError: if matplotlib is not installed.
    """
    if not rows:
        raise ValueError("no rows: nothing to draw")
    edits = [one for one in edits if any(_named("true change", one) in r.metrics for r in rows)]
    figure, panels = _figure(min(max(len(edits), 1), 3), rows=max(-(-len(edits) // 3), 1))
    means = [_true_edit_curve(row, "") for row in rows]  # fails if one is of another protocol
    for panel, edit in zip(panels[: len(edits)], edits, strict=True):
        for number, row in enumerate(rows):
            if edit and _named("true change", edit) not in row.metrics:
                continue
            curve, ceiling = _true_edit_curve(row, edit) if edit else means[number]
            colour = f"C{number % 10}"
            panel.plot(*zip(*curve, strict=True), marker=".", color=colour, linewidth=1)
            panel.plot(*zip(*ceiling, strict=True), marker="s", color=colour, linestyle="none")
        panel.axvline(1.0, color=_INK, linestyle="--", linewidth=0.8)
        panel.set_title(edit or "mean of all edits", fontsize=9, parse_math=False)
        panel.set_ylim(bottom=0)
    for panel in panels[len(edits) :]:
        panel.set_visible(False)
    figure.supxlabel("judged change, as a share of the true one", fontsize=9)
    figure.supylabel("perceptual distance to the true edit", fontsize=9)
    lines = list(panels[0].lines)  # a curve and its ceiling for each row, then the true change
    drawn = [*zip(map(_curve_name, rows), lines[: 2 * len(rows) : 2], strict=True)]
    drawn.append(("true change", lines[-1]))
    if any({*_OF_CEILINGS} <= {*row.metrics} for row in rows):
        (square,) = panels[0].plot([], [], marker="s", color=_INK, linestyle="none")
        drawn.append(("inverted true edit", square))
    names, handles = zip(*drawn, strict=True)
    columns = int(_LETTERS * figure.get_figwidth()) // (max(map(len, names)) + 8)
    columns = min(max(columns, 1), 4)
    legend = figure.legend(handles, [" "] * len(names), loc="outside upper center", ncols=columns)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(name)
    return figure


def _curve_name(row: Row) -> str:
    """Names a curve by its method and space, once where the method's name ends in the space."""
    said = row.method.endswith(f" {row.space}")
    return row.method if said else f"{row.method} {row.space}"


def _true_edit_curve(row: Row, edit: str) -> tuple[list[_Point], list[_Point]]:
    """Returns (change, distance) at every strength, and that of the ceiling, if it was measured.

    Raises:
        ValueError: if the row is of another protocol.
    """
    values = {name: row.metrics.get(_named(name, edit)) for name in _OF_CURVES}
    if lacking := [_named(name, edit) for name, value in values.items() if value is None]:
        raise ValueError(
            f"{row.method} {row.space} has no {lacking[0]!r}: expected protocol=true_edits_curve"
        )
    given = {name: value for name, value in values.items() if value is not None}
    true = given["true change"] or math.nan  # of people who do not change: no share

    def point(picture: str, change: str) -> _Point:
        return given[change] / true, given[picture]

    curve = [(0.0, given["unedited perceptual changed"])]
    curve += [point(f"perceptual changed at {n}/8", f"change at {n}/8") for n in range(1, 9)]
    ceiling = {name: row.metrics.get(_named(name, edit)) for name in _OF_CEILINGS}
    if any(value is None for value in ceiling.values()):
        return curve, [(math.nan, math.nan)]
    given |= {name: value for name, value in ceiling.items() if value is not None}
    return curve, [point("ceiling perceptual changed", "ceiling change")]


def _named(metric: str, edit: str) -> str:
    return f"{metric} {edit}" if edit else metric


def edit_curves(
    path: str | Path, quantities: Sequence[str]
) -> dict[tuple[str, str], dict[str, list[tuple[float, float]]]]:
    """Reads the measurements of `scripts/edit_quality.py` as curves over the strength.

    Args:
        path: its edits.json.
        quantities: keys of its rows, such as "change" and "identity".

    Returns:
        (direction, quantity) -> method -> (strength, value), NaN where there is none.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is another file, or lacks a quantity.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected edits.json of edit_quality.py")
    curves: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
    try:
        for row in parse_json(path.read_text(encoding="utf-8"))["rows"]:
            for quantity in quantities:
                value = math.nan if row[quantity] is None else float(row[quantity])
                curve = curves.setdefault((plain(row["direction"]), quantity), {})
                curve.setdefault(plain(row["method"]), []).append((float(row["strength"]), value))
    except (ValueError, TypeError, KeyError) as error:
        reason = one_line(f"{type(error).__name__}: {error}", 200)
        raise ValueError(f"{path}: not measured edits ({reason})") from error
    return curves


def figure_bytes(figure: Any, suffix: str) -> bytes:
    """Encodes a figure as ".png" or ".svg"; in the latter letters become outlines."""
    import matplotlib

    data = io.BytesIO()
    settings: Any = {"svg.fonttype": "path", "svg.hashsalt": "clcae"}
    metadata = {"Date": None} if suffix == ".svg" else {}  # the same figure is the same file
    with matplotlib.rc_context(settings):
        figure.savefig(data, format=suffix[1:], dpi=150, metadata=metadata)
    return data.getvalue()


def write_figure(figure: Any, path: Path) -> None:
    """Writes a figure whole, as PNG or SVG. Raises ValueError if the suffix is another."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: a figure is written as {' or '.join(SUFFIXES)}")
    with replacing(path) as partial:
        partial.write_bytes(figure_bytes(figure, path.suffix.lower()))


def _figure(columns: int, *, rows: int = 1) -> tuple[Any, list[Any]]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install -e '.[eval]'") from error
    width = 6.4 if columns == 1 else 4.6
    size = (width * columns, 4.4) if rows == 1 else (3.4 * columns, 2.6 * rows)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for panel in panels:
        panel.tick_params(colors=_INK)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _label(panel: Any, points: Sequence[Point]) -> None:
    """Writes names to the right of their dots, each raised until it covers no dot and no name."""
    from matplotlib.transforms import Bbox

    figure = panel.figure
    figure.draw_without_rendering()  # settles the axes, in which places are measured
    centres = [panel.transData.transform((point.x, point.y)) for point in points]
    taken = [Bbox([[x - 3, y - 3], [x + 3, y + 3]]) for x, y in centres]
    for point in sorted(points, key=lambda point: point.y):
        text = panel.annotate(
            point.name if point.comparable else f"{point.name} †",
            (point.x, point.y),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=_INK,
            parse_math=False,
        )
        while (box := text.get_window_extent(figure.canvas.get_renderer())).count_overlaps(taken):
            text.xyann = (6, text.xyann[1] + 1)
        taken.append(box)
