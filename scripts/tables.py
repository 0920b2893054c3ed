"""Prints a table by name: published rows beside rows measured here; see --help."""

from clcae.command import begin

if __name__ == "__main__":
    begin()  # before the imports that take seconds

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from clcae.command import make_parser, run_command
from clcae.evaluation.rows import read_rows
from clcae.files import write_text
from clcae.tables.comparison import MeasuredRow, metric_of, paper_sheet
from clcae.tables.figures import (
    edit_curves,
    figure_bytes,
    points_of,
    strength_curves,
    tradeoff,
    write_figure,
)
from clcae.tables.formats import comma_separated, latex, markdown
from clcae.tables.page import page
from clcae.tables.pooled import differences, put_together, repeated_rows
from clcae.tables.published import PaperTable, read_paper_table
from clcae.tables.sheet import Sheet

NAME = "tables.py"
TABLES = Path(__file__).resolve().parents[1] / "configs" / "table"
FORMATS = {"markdown": markdown, "latex": latex, "csv": comma_separated}
SUFFIXES = {".md": "markdown", ".tex": "latex", ".csv": "csv", ".html": "html", ".htm": "html"}
QUANTITIES = ("change", "identity")  # of measured edits, drawn over their strength
LARGEST_PICTURE = 16 << 20  # bytes of a run's grid that goes into a page
EXAMPLES = """
examples:
  python scripts/tables.py sfe_table1
      the paper's rows, the best of each column in bold, and the protocol of every column
  python scripts/tables.py sfe_table1 --results results.jsonl
      the rows of results.jsonl below them: † was measured under another protocol and is not
      compared, ‡ agrees in all that is known of the table's
  python scripts/tables.py portraits --out portraits.html
      the runs of this machine, with their pictures, as one page
  python scripts/tables.py portraits_comparison
      every method on the portraits, with and without details: mean ± deviation over the seeds
  python scripts/tables.py portraits --edits runs/edits/edits.json --out portraits.html
      with curves of the edits over their strength
  python scripts/tables.py sfe_table1 --figure tradeoff.svg
      distortion against editability as well
  python scripts/tables.py portraits_ablation --format latex > ablation.tex
      mean ± standard deviation over the seeds, then the differences from the full run, seed by seed

tables (configs/table; each begins with its command):
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status, 0 or 1. Raises SystemExit 2 for wrong usage."""
    options = _parser().parse_args(arguments)
    return run_command(NAME, lambda: _print(options))


def _print(options: argparse.Namespace) -> None:
    text = _written(read_paper_table(TABLES / f"{options.name}.yaml"), options)
    if options.out:
        write_text(options.out, text)
    else:
        print(text)


def _written(table: PaperTable, options: argparse.Namespace) -> str:
    """Collects the rows of a table and writes it in the format that was asked for."""
    found = _measured(table, options)
    if not table.rows and not found:
        raise FileNotFoundError(
            f"{options.runs or 'runs'} holds no finished run of this table; make them with "
            f"{_command_of(TABLES / f'{options.name}.yaml')}"
        )
    sheets = _sheets(table, [row for row, _ in found])
    if options.figure:
        if not table.axes:
            raise ValueError(f"{options.name} has no columns of distortion and editability")
        write_figure(tradeoff(sheets[0], table.axes), options.figure)
    if _format(options) != "html":
        if options.edits:
            raise ValueError("--edits draws curves on a page: give --format html")
        return FORMATS[_format(options)](sheets)
    figures: dict[str, Callable[[], Any]] = {}
    columns = list(table.axes.values())
    if all(points_of(sheets[0], (columns[0], other)) for other in columns[1:]) and columns:
        caption = " against ".join(f"{what} ({name})" for what, name in table.axes.items())
        figures[caption] = partial(tradeoff, sheets[0], table.axes)
    curves = edit_curves(options.edits, QUANTITIES) if options.edits else {}
    for (direction, quantity), of_methods in curves.items():
        what = f"{direction}: {quantity}"
        figures[f"{what} over strength, from {options.edits}"] = partial(
            strength_curves, of_methods, quantity=what
        )
    return page(sheets, figures=_drawn(figures), pictures=_pictures(found))


def _command_of(path: Path) -> str:
    """Reads the command that makes the rows of a table: the last one in the head of its file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line[2:] for line in lines if line.startswith("# python ")][-1]


def _sheets(table: PaperTable, rows: Sequence[MeasuredRow]) -> list[Sheet]:
    """Lays out a table, pooled over seeds where it is; then differences from its reference."""
    if not table.results and not table.variants:
        return [paper_sheet(table, rows)]
    sheets = [paper_sheet(*put_together(table, rows))]
    if table.reference:
        reference = table.variants[table.reference]
        present = {row.row.method for row in rows}
        for method in [each for each in table.variants.values() if each not in present]:
            print(f"{NAME}: no finished run of {method!r} yet", file=sys.stderr)
        if minus := differences(rows, reference=reference):
            title = f"Difference from {reference} of the same seed"
            pooled = put_together(replace(table, title=title, source="", notes=()), minus)
            sheets.append(replace(paper_sheet(*pooled), protocol=()))
    return sheets


def _drawn(figures: dict[str, Callable[[], Any]]) -> dict[str, bytes]:
    """Draws figures as SVG; without matplotlib none, and a line says so."""
    try:
        return {caption: figure_bytes(draw(), ".svg") for caption, draw in figures.items()}
    except ImportError as error:
        print(f"{NAME}: the page has no figures: {error}", file=sys.stderr)
        return {}


def _measured(
    table: PaperTable, options: argparse.Namespace
) -> list[tuple[MeasuredRow, Path | None]]:
    """Reads rows that have a metric of the table, with the folder that may hold their grid."""
    found: list[tuple[MeasuredRow, Path | None]] = []
    if table.variants:
        if options.results:
            raise ValueError(f"{options.name} is made of runs alone: --results is for others")
        return [(row, None) for row in repeated_rows(table, options.runs or Path("runs"))]
    default = [Path("results.jsonl")] if table.rows else []
    if table.results:
        default = [(options.runs or Path("runs")) / table.results]
    default = [path for path in default if path.is_file()]
    for path in default if options.results is None else options.results:
        rows = read_rows(path)
        kept = [row for row in rows if any(metric_of(row, c) for c in table.columns)]
        if len(kept) < len(rows):
            left = f"{len(rows) - len(kept)} of {len(rows)} rows have none of its metrics"
            print(f"{NAME}: {path}: {left}: left out", file=sys.stderr)
        beside = path.parent if table.results else None  # the folder of a comparison has a grid
        found += [(MeasuredRow(row, str(path)), beside) for row in kept]
    if options.runs and not options.runs.is_dir():
        raise FileNotFoundError(f"{options.runs}: no such folder of runs")
    folder = options.runs or (Path("runs") if table.runs else None)
    if folder and not table.results:
        for path in sorted(folder.glob(f"{table.runs or '*'}/table.json")):
            found += [(MeasuredRow(row, str(path.parent)), path.parent) for row in read_rows(path)]
    return found


def _pictures(found: Sequence[tuple[MeasuredRow, Path | None]]) -> dict[str, bytes]:
    """Reads grid.png of every run that has one of a size for a page."""
    pictures = {}
    for folder in dict.fromkeys(folder for _, folder in found if folder is not None):
        path = folder / "grid.png"
        if not path.is_file():
            continue
        if path.stat().st_size > LARGEST_PICTURE:
            print(f"{NAME}: {path}: too large for the page: left out", file=sys.stderr)
            continue
        pictures[str(path)] = path.read_bytes()
    return pictures


def _format(options: argparse.Namespace) -> str:
    """Returns the format of --format, else of the suffix of --out, else markdown."""
    by_suffix = SUFFIXES.get(options.out.suffix.lower()) if options.out else None
    return options.format or by_suffix or "markdown"


def _parser() -> argparse.ArgumentParser:
    names = sorted(path.stem for path in TABLES.glob("*.yaml"))

    def table_name(name: str) -> str:
        if name not in names:
            known = ", ".join(names)
            print(f"{NAME}: there is no table {name!r}; there are: {known}", file=sys.stderr)
            raise SystemExit(2)
        return name

    parser = make_parser(
        NAME,
        description="Prints a table by name: published rows beside rows measured here.",
        examples=EXAMPLES + "\n".join(f"  {name}" for name in names),
    )
    parser.add_argument("name", type=table_name, metavar="NAME", help="one of the tables below")
    parser.add_argument(
        "--format",
        choices=sorted([*FORMATS, "html"]),
        help="default: by the suffix of --out (.md, .tex, .csv, .html), else markdown",
    )
    parser.add_argument(
        "--results",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="files of measured rows (default: results.jsonl in this folder, if there is one)",
    )
    parser.add_argument(
        "--runs",
        type=Path,
        metavar="DIR",
        help="folder of run folders, whose table.json holds measured rows (default: runs for the "
        "tables of runs; papers' tables take runs only where this is given)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write there instead of printing")
    parser.add_argument(
        "--figure",
        type=Path,
        metavar="FILE",
        help="also draw distortion against editability, as .png or .svg",
    )
    parser.add_argument(
        "--edits",
        type=Path,
        metavar="FILE",
        help="edits.json of scripts/edit_quality.py: a page then has curves over the strength",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
