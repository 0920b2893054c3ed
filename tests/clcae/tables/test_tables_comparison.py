"""Published and measured rows: what is compared, what is marked, and what the footnotes say."""

import math
from decimal import Decimal

import pytest

from clcae.evaluation.rows import Row
from clcae.tables.comparison import MeasuredRow, compare, paper_sheet
from clcae.tables.published import Column, PaperTable, PublishedRow
from clcae.tables.sheet import Sheet, plain

LPIPS = Column(
    name="LPIPS",
    metrics=("LPIPS", "perceptual"),
    direction="lower",
    decimals=2,
    protocol={"images": "test", "network": "alex", "resolution": "256 x 256"},
)
ID = Column(
    name="ID",
    metrics=("ID",),
    direction="higher",
    decimals=2,
    protocol={"images": "test", "network": "curricular", "resize": None},
)
TIME = Column(
    name="time s",
    metrics=("ms",),
    direction="lower",
    decimals=3,
    protocol={"device": None},
    factor=0.001,
)
ROWS = (
    PublishedRow("a", (Decimal("0.20"), Decimal("0.50"), Decimal("124"))),
    PublishedRow("b", (Decimal("0.10"), Decimal("0.40"), Decimal("0.070")), provenance="an image"),
    PublishedRow("c", (None, Decimal("0.50"), None)),
)
TABLE = PaperTable(title="t", source="s", columns=(LPIPS, ID, TIME), rows=ROWS)
SAME = {"images": "test", "network": "alex", "resolution": "256 x 256"}
FACES = {"images": "test", "network": "curricular"}


def measured(protocol: dict[str, dict[str, str]], method: str = "own", **metrics: float) -> Row:
    return Row(method=method, space="F", metrics=metrics, protocol=protocol, num_images=9)


def sheet(*rows: Row, table: PaperTable = TABLE) -> Sheet:
    return paper_sheet(table, [MeasuredRow(row, "results.jsonl") for row in rows])


def shown(sheet: Sheet) -> list[list[str]]:
    """Each cell as *best* text and mark."""
    return [
        [f"{'*' * cell.best}{cell.text}{cell.mark or ''}" for cell in line.cells]
        for line in sheet.lines
    ]


def test_published_rows_alone() -> None:
    found = sheet()
    assert shown(found) == [
        ["0.20", "*0.50", "124"],
        ["*0.10", "0.40", "*0.070"],
        ["", "*0.50", ""],
    ]
    assert found.words == ("method", "source")
    assert [line.words for line in found.lines] == [
        ("a", "published"),
        ("b", "published (an image)"),
        ("c", "published"),
    ]
    assert not found.footnotes


def test_a_row_of_the_same_protocol_is_compared() -> None:
    found = sheet(measured({"LPIPS": SAME}, LPIPS=0.0512))
    assert shown(found)[1][0] == "0.10" and shown(found)[3] == ["*0.05", "", ""]
    assert found.lines[3].words == ("own", "F", "results.jsonl")
    assert found.lines[3].measured and not found.footnotes


def test_values_are_equal_at_the_decimals_of_the_table() -> None:
    found = shown(sheet(measured({"LPIPS": SAME}, LPIPS=0.0961)))
    assert (found[1][0], found[3][0]) == ("*0.10", "*0.10")


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ({**SAME, "network": "vgg"}, "network “vgg” (the table's: “alex”)"),
        (
            {"images": "test", "network": "alex"},
            "resolution not stated by the row (the table's: “256 x 256”)",
        ),
        ({**SAME, "images": "Test"}, "images “Test” (the table's: “test”)"),
        ({**SAME, "direction": "higher"}, "direction “higher” (the table's: “lower”)"),
        ({}, "network not stated by the row (the table's: “alex”)"),
    ],
)
def test_another_protocol_is_marked_and_never_the_best(protocol: dict[str, str], said: str) -> None:
    found = sheet(measured({"LPIPS": protocol}, LPIPS=0.0001))
    assert shown(found)[1][0] == "*0.10" and shown(found)[3][0] == "0.00†1"
    ((mark, text),) = found.footnotes
    assert str(mark) == "†1" and text.startswith("LPIPS: another protocol, not compared: ")
    assert said in text
    assert found.lines[3].differs["LPIPS"]


def test_what_the_table_does_not_know_is_listed() -> None:
    found = sheet(measured({"ID": {**FACES, "resize": "bicubic"}}, ID=0.9))
    assert shown(found)[3][1] == "*0.90‡1" and shown(found)[0][1] == "0.50"
    assert [text for _, text in found.footnotes] == [
        "ID: agrees in images, network; unknown of the table: resize"
    ]
    # It is listed too where something else differs.
    found = sheet(measured({"ID": {"images": "test", "network": "arcface"}}, ID=0.9))
    assert shown(found)[3][1] == "0.90†1"
    assert found.footnotes[0][1].endswith("; unknown of the table: resize")


def test_a_column_of_which_nothing_is_known_is_compared_with_nothing() -> None:
    found = sheet(measured({"ms": {"device": "cpu"}}, ms=1.5))
    assert shown(found)[3][2] == "0.002†1" and shown(found)[1][2] == "*0.070"
    assert "states nothing of its protocol; unknown of the table: device" in found.footnotes[0][1]


def test_one_footnote_for_all_that_compare_alike() -> None:
    rows = [measured({"LPIPS": {}, "ID": FACES}, LPIPS=0.3, ID=i / 10) for i in range(3)]
    rows.append(measured({"LPIPS": {"images": "other"}}, LPIPS=0.3))
    found = sheet(*rows)
    assert [str(mark) for mark, _ in found.footnotes] == ["†1", "‡2", "†3"]
    assert shown(found)[3:] == [
        ["0.30†1", "0.00‡2", ""],
        ["0.30†1", "0.10‡2", ""],
        ["0.30†1", "0.20‡2", ""],
        ["0.30†3", "", ""],
    ]


def test_words_of_the_extra_count_as_the_row_saying_so() -> None:
    row = Row(
        method="own",
        space="W",
        metrics={"LPIPS": 0.05},
        protocol={"LPIPS": {"network": "alex", "resolution": "256 x 256"}},
        num_images=1,
        extra={"images": "test", "num_counted": {"LPIPS": 1}},
    )
    assert shown(sheet(row))[3][0] == "*0.05"


def test_the_number_of_images_is_a_field() -> None:
    column = Column("x", ("x",), "lower", 1, {"num_images": "9", "images": "test"})
    assert not compare(column, {"num_images": "9", "images": "test"}).differs
    assert compare(column, {"num_images": "8", "images": "test"}).differs == {
        "num_images": ("8", "9")
    }


def test_other_names_of_a_metric_and_values_that_are_not_finite() -> None:
    found = sheet(
        measured({"perceptual": SAME}, perceptual=0.05),
        measured({"LPIPS": SAME}, LPIPS=math.nan, ID=math.inf, ms=3.0),
        measured({}, method="nothing", PSNR=20.0),
    )
    assert len(found.lines) == 5  # the last row has none of the metrics
    assert shown(found)[3][0] == "*0.05"
    assert shown(found)[4] == ["", "", "0.003†1"]


def test_a_single_value_is_not_the_best() -> None:
    blanks = PaperTable(title="t", source="s", columns=(LPIPS,), rows=(PublishedRow("a", (None,)),))
    assert shown(sheet(measured({"LPIPS": SAME}, LPIPS=0.1), table=blanks)) == [[""], ["0.10"]]
    both = [measured({"LPIPS": SAME}, LPIPS=0.1), measured({"LPIPS": SAME}, LPIPS=0.2)]
    assert shown(sheet(*both, table=blanks)) == [[""], ["*0.10"], ["0.20"]]


def test_without_published_rows_the_first_row_sets_the_protocol() -> None:
    column = Column("ms", ("ms",), "lower", 1, {})
    runs = PaperTable(title="t", source="s", columns=(column,), rows=(), runs="*")
    cpu, gpu = {"ms": {"device": "cpu", "batch": "1"}}, {"ms": {"device": "cuda", "batch": "1"}}
    found = sheet(measured(cpu, ms=4.0), measured(gpu, ms=1.0), measured(cpu, ms=3.0), table=runs)
    assert shown(found) == [["4.0"], ["1.0†1"], ["*3.0"]]
    assert found.footnotes[0][1] == (
        "ms: another protocol, not compared: device “cuda” (the first row's: “cpu”)"
    )
    assert not any(line.measured for line in found.lines)
    assert found.protocol == ("ms: number of images 9; device cpu; batch 1",)


def test_rows_whose_protocol_is_no_protocol() -> None:
    row = Row(
        method=7,  # type: ignore[arg-type]
        space=None,  # type: ignore[arg-type]
        metrics={"LPIPS": 0.1},
        protocol=["x"],  # type: ignore[arg-type]
        num_images="many",  # type: ignore[arg-type]
        extra="x",  # type: ignore[arg-type]
    )
    assert shown(sheet(row))[3] == ["0.10†1", "", ""]


def test_strangers_text_is_one_visible_line() -> None:
    assert plain(" a\r\nb\x00\x1b[2J\u202ec\u2028d\ud800 ") == "a b [2J c d"
    found = sheet(measured({"LPIPS": SAME}, method="a\nb\u200b", LPIPS=0.1))
    assert found.lines[3].words[0] == "a b"


def test_huge_values_keep_a_short_form() -> None:
    found = sheet(measured({"LPIPS": SAME}, LPIPS=-1e300))
    assert shown(found)[3][0] == "*-1.000e+300"
