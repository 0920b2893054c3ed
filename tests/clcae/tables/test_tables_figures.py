"""Figures: what is drawn where, in files that are what their suffix says."""

import json
import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from clcae.images import read_image
from clcae.tables.figures import (
    Point,
    edit_curves,
    figure_bytes,
    points_of,
    strength_curves,
    tradeoff,
    write_figure,
)
from clcae.tables.sheet import Cell, Heading, Line, Sheet

AXES = ("LPIPS", "FID of edits")
NAMED = {"distortion": "LPIPS", "editability": "FID of edits"}


def line(name: str, x: float | None, y: float | None, **rest: object) -> Line:
    cells = tuple(Cell() if v is None else Cell(str(v), str(v), v) for v in (x, 1.0, y))
    return Line(words=(name, "F", "x"), cells=cells, **rest)  # type: ignore[arg-type]


SHEET = Sheet(
    title="t",
    words=("method", "space", "source"),
    headings=(Heading("LPIPS", "lower"), Heading("ID", "higher"), Heading("FID of edits", "lower")),
    lines=(
        line("a", 0.1, 30.0),
        line("$\\frac{b", 0.2, 20.0, measured=True),
        line("_c", 0.3, 10.0, measured=True, differs={"LPIPS": {"network": ("x", "y")}}),
        line("d", None, 10.0),
        line("e", 0.3, None),
    ),
)


def test_points_are_the_rows_that_have_both() -> None:
    assert points_of(SHEET, AXES) == [
        Point("a", 0.1, 30.0),
        Point("$\\frac{b F", 0.2, 20.0, measured=True),
        Point("_c F", 0.3, 10.0, measured=True, comparable=False),
    ]
    assert [point.comparable for point in points_of(SHEET, ("ID", "FID of edits"))] == [True] * 4


def test_the_scatter_draws_points_where_they_are_and_names_as_they_are() -> None:
    panel = tradeoff(SHEET, NAMED).axes[0]
    assert [(*drawn.get_xdata(), *drawn.get_ydata()) for drawn in panel.lines] == [
        (0.1, 30.0),
        (0.2, 20.0),
        (0.3, 10.0),
    ]
    assert [drawn.get_markerfacecolor() == "none" for drawn in panel.lines] == [False, False, True]
    assert [text.get_text() for text in panel.texts] == ["_c F †", "$\\frac{b F", "a"]
    assert panel.get_xlabel() == "distortion: LPIPS ↓"


def test_names_do_not_lie_on_one_another() -> None:
    lines = tuple(line(f"method {i}", 0.1 + 0.004 * i, 20 + 0.3 * i) for i in range(6))
    figure = tradeoff(replace(SHEET, lines=lines), NAMED)
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_files(tmp_path: Path) -> None:
    write_figure(tradeoff(SHEET, NAMED), tmp_path / "f.png")
    image = read_image(tmp_path / "f.png")
    assert image.shape[0] == 3 and image[:, 0, 0].tolist() == [1, 1, 1] and image.min() < 0
    for name in ("f.svg", "again.svg"):
        write_figure(tradeoff(SHEET, NAMED), tmp_path / name)
    assert (tmp_path / "f.svg").read_bytes() == (tmp_path / "again.svg").read_bytes()
    root = ElementTree.fromstring((tmp_path / "f.svg").read_text())
    tags = {element.tag.split("}")[1] for element in root.iter()}
    assert root.tag.endswith("svg") and not {"script", "text", "image"} & tags
    with pytest.raises(ValueError, match=r"f\.jpg: a figure is written as \.png or \.svg"):
        write_figure(tradeoff(SHEET, NAMED), tmp_path / "f.jpg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.svg", "f.png", "f.svg"]


def test_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no row has both LPIPS and FID of edits"):
        tradeoff(replace(SHEET, lines=()), NAMED)


def test_panels_of_editability_and_perception_with_the_deviations_of_seeds() -> None:
    cells = (Cell("1", "1", 1.0, deviation=0.5), Cell("2", "2", 2.0), Cell("3", "3", 3.0))
    sheet = replace(SHEET, lines=(Line(words=("m", "W", "seeds"), cells=cells),))
    figure = tradeoff(sheet, {**NAMED, "perception": "ID"})
    assert [panel.get_ylabel() for panel in figure.axes] == [
        "editability: FID of edits ↓",
        "perception: ID ↑",
    ]
    bars = figure.axes[0].containers[0][2][0].get_segments()[0]
    assert bars.tolist() == [[0.5, 3.0], [1.5, 3.0]]


def test_curves_over_strength() -> None:
    curves = {"W": [(1.0, 0.9), (-1.0, 0.8), (0.0, math.nan)], "_F $x$": [(0.0, 1.0)]}
    figure = strength_curves(curves, quantity="identity")
    panel = figure.axes[0]
    assert list(panel.lines[0].get_xdata()) == [-1, 0, 1]
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["W", "_F $x$"]
    assert figure_bytes(figure, ".png").startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="0 curves of identity"):
        strength_curves({}, quantity="identity")
    with pytest.raises(ValueError, match="without points"):
        strength_curves({"W": []}, quantity="identity")


def test_curves_of_measured_edits(tmp_path: Path) -> None:
    row = {"method": "W", "direction": "smile", "strength": 1, "change": 0.5, "identity": None}
    path = tmp_path / "edits.json"
    path.write_text(json.dumps({"rows": [row, {**row, "strength": -1}]}))
    found = edit_curves(path, ("change", "identity"))
    assert found["smile", "change"] == {"W": [(1.0, 0.5), (-1.0, 0.5)]}
    assert math.isnan(found["smile", "identity"]["W"][0][1])
    with pytest.raises(ValueError, match="not measured edits"):
        edit_curves(path, ("leakage",))
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="not measured edits"):
        edit_curves(path, ("change",))
    with pytest.raises(FileNotFoundError, match="no such file"):
        edit_curves(tmp_path / "x.json", ("change",))
