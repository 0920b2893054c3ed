"""Tables: the best of each column, by its direction."""

import math

from clcae.evaluation.rows import Row
from clcae.tables.comparison import rows_sheet
from clcae.tables.formats import markdown_table

PROTOCOL = {"mse": {"direction": "lower"}, "id": {"direction": "higher"}, "time": {}}


def row(method: str, space: str, **metrics: float) -> Row:
    return Row(method=method, space=space, metrics=metrics, protocol=PROTOCOL, num_images=1)


def table_of(
    rows: list[Row], metrics: tuple[str, ...] = (), decimals: dict[str, int] | None = None
) -> str:
    metrics = metrics or tuple(rows[0].metrics)
    return markdown_table(rows_sheet(rows, metrics=metrics, decimals=decimals or {}))


def test_best_is_bold_by_direction() -> None:
    rows = [row("e4e", "W+", mse=0.05, id=0.5, time=3), row("clcae", "F", mse=0.012, id=0.49)]
    assert table_of(rows, decimals={"mse": 4, "id": 1}) == (
        "| method | space | mse ↓ | id ↑ | time |\n"
        "| --- | --- | ---: | ---: | ---: |\n"
        "| e4e | W+ | 0.0500 | **0.5** | 3.000 |\n"
        "| clcae | F | **0.0120** | **0.5** | - |\n"
    )


def test_higher_is_better_where_the_protocol_says_so() -> None:
    table = table_of([row("a", "W", id=0.5), row("b", "W", id=0.7), row("c", "W", id=0.6)])
    assert table.splitlines()[2:] == [
        "| a | W | 0.500 |",
        "| b | W | **0.700** |",
        "| c | W | 0.600 |",
    ]


def test_chosen_columns_and_values_that_are_missing() -> None:
    rows = [row("a", "W", mse=1, id=math.nan), row("b", "W", mse=2, id=0.3)]
    table = table_of(rows, metrics=("id", "mse"), decimals={"mse": 0})
    assert table.splitlines()[2:] == ["| a | W | - | **1** |", "| b | W | 0.300 | 2 |"]


def test_single_row_has_no_best() -> None:
    assert "**" not in table_of([row("a", "W", mse=1)])


def test_bars_in_names_do_not_break_the_table() -> None:
    assert "a\\|b" in table_of([row("a|b", "W", mse=1)])
