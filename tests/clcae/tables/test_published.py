"""The tables of configs/table: their shape, their blanks, and what a broken one is told."""

from decimal import Decimal
from pathlib import Path

import pytest

from clcae.tables.published import PaperTable, read_paper_table

TABLES = Path(__file__).resolve().parents[3] / "configs" / "table"
COUNTS = {  # rows, columns
    "clcae": (11, 6),
    "e4e": (1, 8),
    "hyperstyle_table2": (8, 5),
    "portraits": (0, 6),
    "portraits_ablation": (0, 5),
    "sfe_table1": (12, 8),
    "sfe_table2": (6, 3),
    "sfe_table4": (3, 5),
    "styleres_table1": (8, 5),
    "styleres_table2": (6, 5),
}
BROKEN = """
title: A table
source: {paper: A paper, table: null, arxiv: null, provenance: null}
columns:
  FID: {metrics: [FID], better: lower, decimals: 1}
  ID: {metrics: [ID], better: higher, decimals: 1}
rows:
  e4e: 1.0 null
"""


def read(name: str) -> PaperTable:
    return read_paper_table(TABLES / f"{name}.yaml")


def test_every_table_is_counted() -> None:
    names = {path.stem for path in TABLES.glob("*.yaml")}
    names -= {
        "portraits_comparison",
        "portraits_spaces",
        "portraits_styleres",
        "portraits_tradeoff",
    }  # of lists of images
    assert names == COUNTS.keys()
    assert {n: (len(read(n).rows), len(read(n).columns)) for n in names} == COUNTS


def test_the_benchmark_says_of_which_images_its_columns_are() -> None:
    table = read("portraits_comparison")
    assert (len(table.rows), len(table.columns)) == (0, 32)
    assert table.results == "compare/results.jsonl"
    plain = [column.name for column in table.columns if column.name.endswith(", plain")]
    assert len(plain) == 3
    of_true_edits = ("edit ", "unedited ", "ceiling ")
    for column in table.columns:
        images = "portraits plain" if column.name in plain else "portraits test"
        images = "generated" if column.name.startswith("response ") else images
        images = "portraits true edits" if column.name.startswith(of_true_edits) else images
        assert column.protocol == {"images": images}


@pytest.mark.parametrize("name", COUNTS)
def test_a_table_begins_with_its_command_and_says_what_it_compares(name: str) -> None:
    table = read(name)
    command = (TABLES / f"{name}.yaml").read_text().splitlines()[0]
    assert command.startswith(f"# python scripts/tables.py {name}")
    assert table.title and table.source
    for column in table.columns:
        assert column.metrics and column.direction in ("higher", "lower")
        # A column of a paper states something of how it was measured, or says that nobody knows.
        assert bool(column.protocol) == bool(table.rows)


@pytest.mark.parametrize(
    ("name", "method", "column", "value"),
    [  # one number of each paper's table, by hand
        ("hyperstyle_table2", "StyleGAN2 optimisation", "time s", "227.55"),
        ("sfe_table1", "PTI", "time s", "124"),
        ("sfe_table1", "SFE", "time s", "0.070"),
        ("sfe_table2", "SFE", "FID", "4.035"),
        ("sfe_table4", "SFE", "Rotation (-)", "23.541"),
        ("styleres_table1", "StyleRes", "SSIM", "0.90"),
        ("styleres_table2", "HFGI", "Grass FID", "14.84"),
    ],
)
def test_numbers_keep_the_digits_of_the_paper(
    name: str, method: str, column: str, value: str
) -> None:
    table = read(name)
    index = [c.name for c in table.columns].index(column)
    row = next(row for row in table.rows if row.method == method)
    assert str(row.values[index]) == value


def test_numbers_that_nobody_knows_are_blank_and_say_so() -> None:
    for name in ("clcae", "e4e"):
        table = read(name)
        assert {value for row in table.rows for value in row.values} == {None}
        assert all("not" in row.provenance for row in table.rows)
    assert "CLCAE: own table not recoverable." in read("clcae").notes
    for name in COUNTS.keys() - {"clcae", "e4e"}:
        assert all(isinstance(v, Decimal) for row in read(name).rows for v in row.values)


def test_second_hand_rows_say_so() -> None:
    assert {row.provenance for row in read("hyperstyle_table2").rows} == {
        "read off an image of the table"
    }
    notes = {row.method: row.note for row in read("styleres_table2").rows}
    assert notes.pop("HFGI") == "retrained by the authors of StyleRes"
    assert set(notes.values()) == {""}
    for name in ("styleres_table1", "styleres_table2"):
        assert any("MS-SSIM" in note for note in read(name).notes)
        ssim = next(c for c in read(name).columns if c.name == "SSIM")
        assert ssim.metrics == ("MS-SSIM",)


def test_unknown_and_inapplicable_fields(tmp_path: Path) -> None:
    columns = {column.name: column for column in read("sfe_table1").columns}
    assert columns["LPIPS"].protocol["num_images"] is None
    assert columns["LPIPS"].protocol["images"] == "CelebA-HQ test"
    assert columns["time s"].protocol == {"device": "V100", "batch": None}
    assert columns["time s"].factor == 0.001


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1.0 null", "1.0", "row e4e has 1 values for 2 columns"),
        ("1.0 null", "1.0 about", "row e4e: 'about' is no number; an unknown one is null"),
        ("1.0 null", "nan 1.0", "row e4e: 'nan' is no number"),
        ("better: lower", "better: smaller", "better is 'smaller'"),
        ("decimals: 1}\n  ID", "decimal: 1}\n  ID", "unknown keys decimal"),
        ("title: A table", "titel: A table", "unknown keys titel"),
        ("title: A table\n", "", "lacks title"),
        ("arxiv: null, ", "", "source lacks arxiv"),
        ("rows:", "figure: {distortion: FID, editability: LEC}\nrows:", "expected columns"),
        ("rows:", "rows: [", "no table"),
        ("e4e: 1.0 null", "e4e: {values: 1.0 null, remark: x}", "unknown keys remark"),
    ],
)
def test_a_broken_table_is_a_reason(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in BROKEN
    path = tmp_path / "broken.yaml"
    path.write_text(BROKEN)
    assert len(read_paper_table(path).rows) == 1
    path.write_text(BROKEN.replace(old, new))
    with pytest.raises(ValueError, match="no table") as caught:
        read_paper_table(path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such table"):
        read_paper_table(tmp_path / "x.yaml")
