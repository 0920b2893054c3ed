"""Figures of tables: distortion against editability, and curves over the strength of an edit.

They are drawn by matplotlib, which is imported here only (`pip install -e '.[eval]'`), for light or
dark paper with a transparent ground. Text is drawn as it is, never read as a formula.
"""

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clcae.files import replacing
from clcae.tables.sheet import ARROWS, Sheet, plain

Paper = Literal["light", "dark"]
SUFFIXES = (".png", ".svg")
_INK: dict[Paper, str] = {"light": "#1d2127", "dark": "#e6e8eb"}
_DOTS: dict[Paper, str] = {"light": "#2f6db3", "dark": "#7fb2ea"}
_OWN: dict[Paper, str] = {"light": "#c2410c", "dark": "#f59e5b"}
_MARKERS = "osv^DPX*"
# Where a label may stand about its dot: offset in points, horizontal and vertical alignment.
_PLACES = (
    (6, 0, "left", "center"),
    (-6, 0, "right", "center"),
    (0, 6, "center", "bottom"),
    (0, -6, "center", "top"),
    (5, 5, "left", "bottom"),
    (-5, 5, "right", "bottom"),
    (5, -5, "left", "top"),
    (-5, -5, "right", "top"),
)


@dataclass(frozen=True)
class Point:
    """One method: x is distortion, y editability."""

    name: str
    x: float
    y: float
    measured: bool = False
    comparable: bool = True


def points_of(sheet: Sheet, axes: tuple[str, str]) -> list[Point]:
    """The lines of a sheet that have both columns; what is not comparable is told so."""
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
        points.append(Point(label, x.value, y.value, line.measured, not differs))
    return points


def tradeoff(points: Sequence[Point], sheet: Sheet, axes: tuple[str, str], *, paper: Paper) -> Any:
    """A figure of points, measured ones in another colour and hollow if not comparable.

    Args:
        points: One or more.
        sheet: Whose headings say which way is better.
        axes: Columns of distortion and editability.
        paper: What it will lie on.

    Raises:
        ValueError: There is no point.
        ImportError: matplotlib is not installed.
    """
    if not points:
        raise ValueError(f"no row has both {axes[0]} and {axes[1]}: nothing to draw")
    figure, panel = _figure(paper)
    for point in points:
        colour = (_OWN if point.measured else _DOTS)[paper]
        panel.plot(
            [point.x],
            [point.y],
            marker="D" if point.measured else "o",
            color=colour,
            markerfacecolor=colour if point.comparable else "none",
            linestyle="none",
        )
    arrows = {heading.name: ARROWS.get(heading.direction, "") for heading in sheet.headings}
    panel.set_xlabel(f"distortion: {axes[0]} {arrows[axes[0]]}", parse_math=False)
    panel.set_ylabel(f"editability: {axes[1]} {arrows[axes[1]]}", parse_math=False)
    panel.margins(0.12)
    _label(panel, points, _INK[paper])
    return figure


def strength_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    *,
    quantity: str,
    paper: Paper = "light",
) -> Any:
    """A figure of curves over the strength of an edit.

    Args:
        curves: Name -> (strength, value) in any order; values that are NaN leave a gap.
        quantity: What the values are, in words.
        paper: What it will lie on.

    Raises:
        ValueError: There is no curve, or one has no point.
        ImportError: matplotlib is not installed.
    """
    if not curves or not all(curves.values()):
        raise ValueError(f"{len(curves)} curves of {quantity}, or one without points: no figure")
    figure, panel = _figure(paper)
    drawn = []
    for index, points in enumerate(curves.values()):
        strengths, values = zip(*sorted(points), strict=True)
        marker = _MARKERS[index % len(_MARKERS)]
        drawn += panel.plot(strengths, values, marker=marker, markersize=4)
    panel.set_xlabel("strength")
    panel.set_ylabel(quantity, parse_math=False)
    panel.grid(alpha=0.25)
    # Names come later: the legend would leave out those that begin with "_", and read formulas.
    legend = panel.legend(drawn, [" "] * len(drawn), frameon=False, labelcolor=_INK[paper])
    for text, name in zip(legend.get_texts(), curves, strict=True):
        text.set_parse_math(False)
        text.set_text(name)
    return figure


def edit_curves(
    path: str | Path, quantities: Sequence[str]
) -> dict[tuple[str, str], dict[str, list[tuple[float, float]]]]:
    """What `scripts/edit_quality.py` measured, as curves over the strength.

    Args:
        path: Its edits.json.
        quantities: Such as "change" and "identity".

    Returns:
        (direction, quantity) -> method -> (strength, value), NaN where there is none.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is another file, or lacks a quantity.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected edits.json of edit_quality.py")
    curves: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
    try:
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
            for quantity in quantities:
                value = math.nan if row[quantity] is None else float(row[quantity])
                curve = curves.setdefault((plain(row["direction"]), quantity), {})
                curve.setdefault(plain(row["method"]), []).append((float(row["strength"]), value))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path}: not measured edits ({type(error).__name__}: {error})") from error
    return curves


def figure_bytes(figure: Any, suffix: str) -> bytes:
    """A figure as a file of ".png" or ".svg"; letters become outlines in the latter."""
    import matplotlib

    data = io.BytesIO()
    settings: Any = {"svg.fonttype": "path", "svg.hashsalt": "clcae"}
    metadata = {"Date": None} if suffix == ".svg" else {}  # the same figure is the same file
    with matplotlib.rc_context(settings):
        figure.savefig(data, format=suffix[1:], dpi=150, metadata=metadata)
    return data.getvalue()


def write_figure(figure: Any, path: str | Path) -> None:
    """Writes a figure as PNG on white or as SVG, by its suffix; complete or not at all.

    Raises:
        ValueError: The suffix is another.
    """
    path = Path(path)
    check_suffix(path)
    figure.patch.set(facecolor="white", alpha=1)
    with replacing(path) as partial:
        partial.write_bytes(figure_bytes(figure, path.suffix.lower()))


def check_suffix(path: Path) -> None:
    """Whether a file can hold a figure.

    Raises:
        ValueError: Its suffix is neither of a PNG nor of an SVG.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: a figure is written as {' or '.join(SUFFIXES)}")


def _figure(paper: Paper) -> tuple[Any, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install -e '.[eval]'") from error
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.patch.set_alpha(0)
    panel = figure.subplots()
    ink = _INK[paper]
    panel.set_facecolor("none")
    panel.tick_params(colors=ink)
    panel.xaxis.label.set_color(ink)
    panel.yaxis.label.set_color(ink)
    for side, spine in panel.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(ink)
    return figure, panel


def _label(panel: Any, points: Sequence[Point], ink: str) -> None:
    """Names beside their dots, each where it covers the least of dots and earlier names."""
    figure = panel.figure
    figure.draw_without_rendering()  # settles the axes, in which places are measured
    renderer = figure.canvas.get_renderer()
    taken = [_around(panel.transData.transform((point.x, point.y))) for point in points]
    frame = panel.get_window_extent(renderer)
    for point in points:
        name = point.name if point.comparable else f"{point.name} †"
        best = None
        for x, y, horizontal, vertical in _PLACES:
            text = panel.annotate(
                name,
                (point.x, point.y),
                xytext=(x, y),
                textcoords="offset points",
                ha=horizontal,
                va=vertical,
                fontsize=8,
                color=ink,
                parse_math=False,
            )
            box = text.get_window_extent(renderer)
            cost = sum(_overlap(box, other) for other in taken)
            cost += box.width * box.height - _overlap(box, frame)
            if best is None or cost < best[0]:
                if best is not None:
                    best[1].remove()
                best = (cost, text, box)
            else:
                text.remove()
        if best is not None:
            taken.append(best[2])


def _around(centre: tuple[float, float]) -> Any:
    from matplotlib.transforms import Bbox

    x, y = centre
    return Bbox([[x - 4, y - 4], [x + 4, y + 4]])


def _overlap(first: Any, second: Any) -> float:
    width = min(first.x1, second.x1) - max(first.x0, second.x0)
    height = min(first.y1, second.y1) - max(first.y0, second.y0)
    return float(max(width, 0.0) * max(height, 0.0))
