"""Markdown, LaTeX, CSV and HTML of one sheet, read back by parsers that know no mercy."""

import base64
import csv
import io
import json
import re
from html.parser import HTMLParser

import pytest

from clcae.tables.formats import comma_separated, latex, latex_text, markdown
from clcae.tables.page import data_uri, page
from clcae.tables.sheet import Cell, Heading, Line, Mark, Sheet, plain

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a | b || c",
    "**bold** _em_ `code` ~~gone~~",
    "[link](http://evil.example) ![x](http://evil.example/x.png)",
    "www.evil.example https://evil.example",
    "\\input{/etc/passwd} $x^2_3$ 100% #1 & ~",
    "[5cm] *stars* \\\\ \\end{tabular}",
    "=HYPERLINK(1) ,;\t'quoted' \"twice\"",
    "line\nbreak\r\nand\u2028more \x1b[31m \u202egnp.exe \ud800",
    "&lt;b&gt; &#60;i&#62;",
    "é ü ñ ß Łódź 中文 🙂 “x” ± σ",
    "",
    "--><!--",
]
SHEET = Sheet(
    title="A title with <b>, | and 50 %",
    words=("method", "space", "source"),
    headings=(Heading("LPIPS", "lower"), Heading("ID <x> & y", "higher"), Heading("n")),
    lines=tuple(
        Line(
            words=(text, "F", f"source {text}"),
            cells=(
                Cell(
                    text=f"0.{number:03d}",
                    exact=f"0.{number:03d}4",
                    value=number / 1000,
                    best=number == 0,
                    mark=Mark("†", 1) if number == 1 else None,
                ),
                Cell(),
                Cell(text="1 ± 2", exact="1 ± 2", value=1.0),
            ),
            measured=number > 0,
            protocol={"LPIPS": {"network": text, "resize": None}},
            differs={"LPIPS": {"network": (None, text)}} if number == 1 else {},
        )
        for number, text in enumerate(HOSTILE)
    ),
    source="A paper & <i>more</i>",
    footnotes=((Mark("†", 1), f"LPIPS: network “{HOSTILE[0]}” | {HOSTILE[6]}"),),
    notes=(HOSTILE[7], "[a]: http://evil.example"),
    protocol=(f"LPIPS: {HOSTILE[0]}",),
)
PNG = b"\x89PNG\r\n\x1a\n rest"
SVG = b'<?xml version="1.0"?><svg/>'


def test_markdown_has_the_cells_of_the_sheet() -> None:
    text = markdown([SHEET])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(HOSTILE)
    for row in rows:
        assert len(re.split(r"(?<!\\)\|", row)) == 6 + 2
    assert rows[0].endswith("| LPIPS ↓ | ID \\<x\\> & y ↑ | n |")
    assert rows[2].endswith("| **0.000** | - | 1 ± 2 |")
    assert "| 0.001 †1 | - | 1 ± 2 |" in rows[3]
    assert "\n- †1 LPIPS: network" in text


def test_markdown_is_text_to_a_markdown_parser() -> None:
    parser = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    tokens = parser.parse(markdown([SHEET]))
    inline = [child for token in tokens for child in token.children or []]
    assert {token.type for token in inline} <= {
        "text",
        "strong_open",
        "strong_close",
        "text_special",
    }
    assert not any(token.type == "html_block" for token in tokens)
    strong = [i for i, token in enumerate(inline) if token.type == "strong_open"]
    assert [inline[i + 1].content for i in strong] == ["0.000"]
    first = [i for i, token in enumerate(tokens) if token.type == "td_open"][
        :: len(SHEET.words) + 3
    ]
    read = ["".join(c.content for c in tokens[i + 1].children or []) for i in first]
    assert read == [plain(text) or "-" for text in HOSTILE]


# What the notes and tables may use of LaTeX, besides booktabs.
COMMANDS = re.compile(
    r"begin|end|(top|mid|bottom)rule|textbf|par|smallskip|footnotesize|pm|times|(up|down)arrow|"
    r"d?dagger|sigma|text(backslash|asciitilde|asciicircum|less|greater|bar|asciigrave)|ldots|"
    r"ss|ae|AE|o|O|l|L|[uvcrH]"
)


def check_latex(text: str) -> list[list[str]]:
    """Reads LaTeX as strictly as TeX would, and returns the cells of its tables."""
    text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("%"))
    assert text.isascii()
    depth, math, position = 0, False, 0
    while position < len(text):
        character = text[position]
        position += 1
        if character == "\\":
            match = re.match(r"[A-Za-z]+|.", text[position:], re.DOTALL)
            assert match
            position += match.end()
            if match[0].isalpha():
                assert COMMANDS.fullmatch(match[0]), match[0]
            else:
                assert match[0] in "\\&%$#_{}'`\"^~=.", match[0]
        elif character in "{}":
            depth += 1 if character == "{" else -1
            assert depth >= 0
        elif character == "$":
            math = not math
        elif character == "^":
            assert math
        else:
            assert character not in "%#_~", character
    assert depth == 0 and not math
    assert re.findall(r"\\(begin|end)\{(\w+)\}", text) == [
        ("begin", "tabular"),
        ("end", "tabular"),
    ] * text.count("\\begin")
    cells = []
    for spec, body in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", text, re.S):
        body = re.sub(r"\\(top|mid|bottom)rule\n", "", body).strip("\n")
        assert body.endswith("\\\\")
        rows = body.removesuffix("\\\\").split("\\\\\n")
        for row in rows:
            assert not re.match(r"\s*[\[*]", row)  # it would belong to the \\ before
            cells.append(re.split(r"(?<!\\)&", row))
            assert len(cells[-1]) == len(spec)
    return cells


def test_latex_is_read_strictly() -> None:
    text = latex([SHEET])
    cells = check_latex(text + latex([SHEET]))
    assert len(cells) == 2 * (1 + len(HOSTILE))
    assert text.splitlines()[0].endswith("needs booktabs")
    assert cells[1][3:5] == [" \\textbf{0.000} ", " -- "]
    assert cells[2][3] == " 0.001$^{\\dagger1}$ "
    assert "$^{\\dagger1}$ LPIPS" in text


def test_latex_letters() -> None:
    assert latex_text("é ñ ß Łódź") == "\\'{e} \\~{n} \\ss{} \\L{}\\'{o}d\\'{z}"
    assert latex_text("中") == "{[}U+4E2D]"


def test_csv_is_for_programs() -> None:
    rows = list(csv.reader(io.StringIO(comma_separated([SHEET])), strict=True))
    assert rows[0] == [*SHEET.words, "LPIPS", "ID <x> & y", "n", "protocol", "differs"]
    assert len(rows) == 1 + len(HOSTILE) and {len(row) for row in rows} == {8}
    for text, row in zip(HOSTILE, rows[1:], strict=True):
        assert row[0].lstrip("'") == plain(text).lstrip("'")
        assert not row[0].startswith(("=", "+", "-", "@"))
        assert float(row[3]) >= 0 and row[4] == ""
        assert json.loads(row[6])["LPIPS"]["resize"] is None
    assert json.loads(rows[2][7]) == {"LPIPS": {"network": [None, HOSTILE[1]]}}


VOID = ("meta", "img", "source")


class Page(HTMLParser):
    """Refuses what is not balanced, and collects tags, links and the texts of cells."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def test_page_is_one_file_that_runs_only_its_own_script() -> None:
    text = page([SHEET, SHEET], figures={HOSTILE[1]: SVG}, pictures={HOSTILE[0]: PNG})
    parsed = Page(text)
    tags = [tag for tag, _ in parsed.tags]
    assert tags.count("script") == len(parsed.scripts) == 1
    assert tags.count("img") == 2 and tags.count("table") == 2
    for tag, attributes in parsed.tags:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("src", "srcset", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#note-"))
    policy = next(a for t, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in str(policy["content"])
    assert any(a.get("name") == "viewport" for _, a in parsed.tags)
    assert "prefers-color-scheme: dark" in text


def test_page_holds_the_texts_as_they_are() -> None:
    parsed = Page(page([SHEET], figures={}, pictures={}))
    assert parsed.rows[0] == ["method", "space", "LPIPS ↓", "ID <x> & y ↑", "n", "source"]
    assert [row[0] for row in parsed.rows[1:]] == [plain(text) or "–" for text in HOSTILE]
    assert parsed.rows[2][2:5] == ["0.001†1", "–", "1 ± 2"]
    assert parsed.rows[1][5] == plain(f"source {HOSTILE[0]}")
    values = [a.get("data-value") for t, a in parsed.tags if t == "td" and "data-value" in a]
    assert values[:3] == ["0", "", "1"]
    ids = {a["id"] for _, a in parsed.tags if "id" in a}
    links = {str(a["href"])[1:] for t, a in parsed.tags if t == "a"}
    assert links == ids == {"note-0-1"}
    firsts = [a.get("data-first") for t, a in parsed.tags if t == "th" and "data-first" in a]
    assert firsts == ["1", "1", "1", "-1", "1", "1"]


def test_pictures_are_of_their_kind() -> None:
    uri = data_uri(PNG, "image/png", name="x")
    assert base64.b64decode(uri.removeprefix("data:image/png;base64,")) == PNG
    with pytest.raises(ValueError, match=r"grid.png: expected a picture of type image/png"):
        data_uri(b"<svg onload=alert(1)>", "image/png", name="grid.png")
