"""Rows of several seeds and lists of images in one line: means, spreads, and what is left out."""

import statistics
from dataclasses import replace

import pytest

from clcae.evaluation.rows import Row
from clcae.tables.comparison import MeasuredRow, paper_sheet
from clcae.tables.formats import comma_separated, latex, markdown
from clcae.tables.page import page
from clcae.tables.pooled import curves_of, put_together
from clcae.tables.published import Column, PaperTable
from clcae.tables.sheet import Sheet

PLAIN, DETAILS = {"images": "plain"}, {"images": "details"}
TABLE = PaperTable(
    title="t",
    source="s",
    columns=(
        Column("PSNR, plain", ("PSNR",), "higher", 2, PLAIN),
        Column("PSNR", ("PSNR",), "higher", 2, DETAILS),
        Column("s", ("ms",), "lower", 3, DETAILS, factor=0.001),
    ),
    rows=(),
    results="results.jsonl",
)


def row(images: str, seed: int | None, psnr: float, method: str = "m", **metrics: float) -> Row:
    metrics = {"PSNR": psnr, **metrics}
    protocol = {name: {"levels": "uint8", "direction": "higher"} for name in metrics}
    protocol |= {"ms": {"device": "cpu", "direction": "lower"}} if "ms" in metrics else {}
    extra = {"images": images, "digest": f"{images}{seed}{psnr}", "commit": str(psnr)}
    extra |= {} if seed is None else {"seed": seed}
    return Row(method, "F", metrics, protocol, num_images=9, extra=extra)


def sheet(*rows: Row) -> Sheet:
    return paper_sheet(*put_together(TABLE, [MeasuredRow(one, "results.jsonl") for one in rows]))


ROWS = [
    row("details", 0, 20.0, ms=10.0),
    row("plain", 0, 25.0),
    row("details", 1, 21.5, ms=11.0),
    row("plain", 1, 24.0),
    row("details", 2, 20.6, ms=15.0),
    row("details", None, 22.0, "n", ms=900.0),
]


def texts(table: Sheet) -> list[list[str]]:
    return [[f"{'*' * c.best}{c.text}{c.mark or ''}" for c in line.cells] for line in table.lines]


def test_means_and_spreads_over_the_seeds_of_each_list() -> None:
    made = sheet(*ROWS)
    deviation = statistics.stdev([20.0, 21.5, 20.6])
    assert [line.words for line in made.lines] == [
        ("m", "F", "seeds 0, 1, 2"),
        ("n", "F", "no training"),
    ]
    assert texts(made) == [
        ["24.50 ± 0.71", f"20.70 ± {deviation:.2f}", "*0.012 ± 0.003"],
        ["", "*22.00", "0.900"],
    ]
    cell = made.lines[0].cells[1]
    assert cell.value == pytest.approx(20.7)
    assert [float(part) for part in cell.exact.split(" ± ")] == pytest.approx([20.7, deviation])
    assert not made.footnotes and made.notes == ()


def test_every_format_shows_them() -> None:
    made = sheet(*ROWS)
    assert "24.50 ± 0.71" in markdown([made])
    assert "24.50 $\\pm$ 0.71" in latex([made]) and "20.7 ± " in comma_separated([made])
    html = page([made], figures={}, pictures={})
    assert "24.50 ± 0.71" in html and 'data-value="24.5"' in html


def test_the_latest_row_of_a_run_counts() -> None:
    made = sheet(row("details", 0, 1.0), *ROWS[:1], row("details", 0, 30.0, ms=10.0))
    assert texts(made)[0][1] == "30.00" and made.lines[0].words[2] == "seed 0"


def test_other_protocols_are_never_averaged() -> None:
    odd = replace(row("details", 3, 90.0, ms=1.0), num_images=4)
    made = sheet(odd, *ROWS)  # the latest decides
    assert texts(made)[0][1].startswith("20.70 ± ")
    assert made.notes == ("m, F: 1 of 4 runs were measured otherwise",)
    made = sheet(*ROWS[:5], odd)
    assert texts(made)[0][1:] == ["90.00", "0.001"]
    assert made.notes == ("m, F: 3 of 4 runs were measured otherwise",)


def test_another_method_under_another_protocol_is_marked() -> None:
    other = replace(ROWS[5], num_images=4)
    made = sheet(*ROWS[:5], other)
    assert texts(made)[1][1] == "22.00†1" and texts(made)[0][1].startswith("20.70")
    said = "number of images “4” (the first row's: “9”)"
    assert said in made.footnotes[0][1] and made.footnotes[0][1].startswith("PSNR, s: ")


def test_rows_of_no_list_of_the_table_are_no_line() -> None:
    assert sheet(row("others", 0, 3.0)).lines == ()


def test_a_column_may_be_a_difference_seed_by_seed() -> None:
    column = Column("gap", ("PSNR",), "higher", 2, DETAILS, factor=2.0, minus="floor")
    table = replace(TABLE, columns=(column,))
    rows = [row("details", seed, 20.0 + seed, floor=10.0 - seed) for seed in (0, 1, 2)]
    rows.append(row("details", 3, 50.0))  # has no floor
    made = paper_sheet(*put_together(table, [MeasuredRow(one, "r") for one in rows]))
    assert texts(made) == [["24.00 ± 4.00"]] and made.lines[0].words[2] == "seeds 0, 1, 2"


def test_another_precision_is_a_line_of_its_own() -> None:
    """Of the same seed and list; what a row does not say is float32."""
    rows = [row("details", seed, 20.0 + seed) for seed in (0, 1)]
    fast = [
        replace(
            one,
            extra={**one.extra, "precision": "bfloat16"},
            protocol={"PSNR": {**one.protocol["PSNR"], "precision": "bfloat16"}},
        )
        for one in rows
    ]
    said = [replace(one, extra={**one.extra, "precision": "float32"}) for one in rows]
    made = sheet(*rows, *fast, *said)
    assert [line.words[:2] for line in made.lines] == [("m", "F"), ("m, bfloat16", "F")]
    assert [line[1] for line in texts(made)] == ["20.50 ± 0.71", "20.50 ± 0.71†1"]
    assert made.footnotes[0][1].endswith("precision “bfloat16” (the first row's: “float32”)")


def test_curves_are_means_over_seeds() -> None:
    again = row("details", 0, 20.3, ms=10.0)  # replaces the first of its seed
    half = replace(row("details", 0, 18.0), extra={**again.extra, "precision": "bfloat16"})
    one, other, halved = curves_of([*ROWS, again, half], images="details")
    mean = statistics.fmean([20.3, 21.5, 20.6])
    assert (one.method, one.metrics) == ("m", {"PSNR": mean, "ms": 12.0})
    assert (other.method, other.metrics["PSNR"]) == ("n", 22.0)
    assert (halved.method, halved.metrics) == ("m, bfloat16", {"PSNR": 18.0})
    assert [row.method for row in curves_of(ROWS)] == ["m", "m", "n"]  # a list each
    assert curves_of(ROWS, begin=["n F", "k"]) == [ROWS[-1]]
    assert curves_of([]) == []
    with pytest.raises(ValueError, match="no such row: of details, plain there are m F, n F"):
        curves_of(ROWS, begin=["F"])
    with pytest.raises(ValueError, match="m F: seeds 0, 1, 2 were not measured alike: no mean"):
        curves_of([*ROWS, replace(again, num_images=8)], images="details")
