"""What files say is printed in one line, cut, and without control characters."""

import pytest

from clcae.quoting import listing, one_line, parse_json, shown


def test_control_characters_do_not_reach_the_terminal() -> None:
    text = "a\x1b[2Jb\rc\nd\u202ee\x00\ud800"
    for line in (one_line(text), shown(text), listing([text], 3)):
        assert line.isprintable() and "a" in line and "\x1b" not in line
    assert one_line("a\n  b\t c") == "a b c"
    assert one_line("é 写真.png") == "é 写真.png"


def test_long_texts_are_cut() -> None:
    name = "x" * 10_000_000
    assert one_line(name, 80) == "x" * 80 + "..."
    assert len(shown(name)) < 100 and len(one_line(ValueError(name))) < 2100
    assert listing([name] * 9, 2) == f"{'x' * 80}..., {'x' * 80}... and 7 more"
    assert one_line("x" * 80, 80) == "x" * 80


def test_values_that_are_large_or_nested_are_not_formatted() -> None:
    nested: tuple = ()
    for _ in range(60):
        nested = (nested, nested)  # 2**60 leaves
    assert shown(nested) == "a tuple"
    assert shown({"a": 1}) == "a dict"
    assert shown(10**5000) == "an integer of 16610 bits"
    assert [shown(value) for value in (None, True, 3, 0.5, "a")] == [
        "None",
        "True",
        "3",
        "0.5",
        "'a'",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("[NaN]", "holds NaN"),
        ("[-Infinity]", "holds -Infinity"),
        ("[1e999]", "expected finite"),
        ("9" * 400, "an integer of 400 digits"),
        ("9" * 10_000, "an integer of 10000 digits"),
        ("{", "Expecting property name"),
    ],
)
def test_json_of_strangers(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_json(text)


def test_json_of_ours() -> None:
    text = '{"a": [1, -2.5, 1e-300, 18446744073709551615, "NaN", null, true]}'
    assert parse_json(text) == {"a": [1, -2.5, 1e-300, (1 << 64) - 1, "NaN", None, True]}
    assert parse_json(text.encode()) == parse_json(text)
