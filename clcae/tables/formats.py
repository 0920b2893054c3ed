"""Sheets as Markdown, LaTeX and CSV; whatever a row says is text in each of them, never markup.

LaTeX needs booktabs and nothing else: it is ASCII, so that any encoding and engine takes it, and
characters that plain LaTeX cannot set are written as [U+4E2D].
"""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Sequence

from clcae.tables.sheet import Cell, Line, Mark, Sheet, plain

BLANK = "-"

_LATEX = {
    "\\": "\\textbackslash{}",
    "&": "\\&",
    "%": "\\%",
    "$": "\\$",
    "#": "\\#",
    "_": "\\_",
    "{": "\\{",
    "}": "\\}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    "[": "{[}",  # after \\ it would begin an argument
    "*": "{*}",  # and this would change its meaning
    '"': "''",
    "`": "\\textasciigrave{}",
    "±": "$\\pm$",
    "×": "$\\times$",
    "↑": "$\\uparrow$",
    "↓": "$\\downarrow$",
    "†": "$\\dagger$",
    "‡": "$\\ddagger$",
    "σ": "$\\sigma$",
    "–": "--",
    "—": "---",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "…": "\\ldots{}",
    "ß": "\\ss{}",
    "æ": "\\ae{}",
    "Æ": "\\AE{}",
    "ø": "\\o{}",
    "Ø": "\\O{}",
    "ł": "\\l{}",
    "Ł": "\\L{}",
}
_ACCENTS = {  # combining character -> LaTeX's command
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
}
_FORMULA = ("=", "+", "-", "@")  # what a spreadsheet would compute


def markdown(sheets: Sequence[Sheet]) -> str:
    """Tables in Markdown, the best in bold, notes below."""
    return "\n".join(_markdown_sheet(sheet) for sheet in sheets)


def _markdown_sheet(sheet: Sheet) -> str:
    head = [*sheet.words, *map(str, sheet.headings)]
    rule = ["---"] * len(sheet.words) + ["---:"] * len(sheet.headings)
    lines = [[_markdown_text(text) for text in head], rule]
    for line in sheet.lines:
        words = [_markdown_text(word) or BLANK for word in line.words]
        lines.append([*words, *map(_markdown_cell, line.cells)])
    drawn = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    parts = [f"{_markdown_text(sheet.title)}\n", drawn]
    if sheet.source:
        parts.insert(1, f"Source: {_markdown_text(sheet.source)}\n")
    if sheet.footnotes:
        notes = [f"- {mark} {_markdown_text(text)}\n" for mark, text in sheet.footnotes]
        parts.append("".join(notes))
    if sheet.protocol:
        said = "".join(f"- {_markdown_text(text)}\n" for text in sheet.protocol)
        parts.append(f"Protocol:\n\n{said}")
    if sheet.notes:
        said = "".join(f"- {_markdown_text(note)}\n" for note in sheet.notes)
        parts.append(f"Notes:\n\n{said}")
    return "\n".join(parts)


def _markdown_cell(cell: Cell) -> str:
    if not cell.text:
        return BLANK
    text = f"**{cell.text}**" if cell.best else cell.text
    return f"{text} {cell.mark}" if cell.mark else text


def _markdown_text(text: str) -> str:
    """Text of which nothing is markup: no cell ends, no emphasis, link, code or HTML begins."""
    text = re.sub(r"([\\`*<>|~]|\](?=[(\[:]))", r"\\\1", plain(text))
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)  # within words it is no emphasis
    text = re.sub(r"&(?=[#\w]+;)", r"\\&", text)
    return re.sub(r"(?i)(www)\.|://", lambda m: f"{m[1]}\\." if m[1] else "\\://", text)


def latex(sheets: Sequence[Sheet]) -> str:
    """Tables in LaTeX (booktabs), the best in bold, notes below in small print."""
    return "\n".join(_latex_sheet(sheet) for sheet in sheets)


def _latex_sheet(sheet: Sheet) -> str:
    head = [*sheet.words, *map(str, sheet.headings)]
    lines = [[*map(_latex_word, line.words), *map(_latex_cell, line.cells)] for line in sheet.lines]
    top = " & ".join(map(latex_text, head)) + " \\\\\n"
    rows = "".join(" & ".join(line) + " \\\\\n" for line in lines)
    columns = "l" * len(sheet.words) + "r" * len(sheet.headings)
    comment = plain(f"{sheet.title}; needs booktabs")
    return (
        f"% {comment}\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n{top}\\midrule\n"
        f"{rows}\\bottomrule\n\\end{{tabular}}\n{_latex_notes(sheet)}"
    )


def _latex_notes(sheet: Sheet) -> str:
    notes = [f"{_latex_mark(mark)} {latex_text(text)}" for mark, text in sheet.footnotes]
    notes += [f"Source: {latex_text(sheet.source)}"] if sheet.source else []
    notes += [latex_text(text) for text in (*sheet.protocol, *sheet.notes)]
    if not notes:
        return ""
    return "\\par\\smallskip\n{\\footnotesize\n" + "".join(f"{n}\\par\n" for n in notes) + "}\n"


def _latex_word(word: str) -> str:
    return latex_text(word) or "--"


def _latex_cell(cell: Cell) -> str:
    if not cell.text:
        return "--"
    text = latex_text(cell.text)
    text = f"\\textbf{{{text}}}" if cell.best else text
    return f"{text}{_latex_mark(cell.mark)}" if cell.mark else text


def _latex_mark(mark: Mark) -> str:
    symbol = latex_text(mark.symbol).strip("$")
    return f"$^{{{symbol}{mark.number}}}$"


def latex_text(text: str) -> str:
    """Text for LaTeX in ASCII, none of it a command."""
    return "".join(map(_latex_character, unicodedata.normalize("NFC", plain(text))))


def _latex_character(character: str) -> str:
    if character in _LATEX:
        return _LATEX[character]
    if character.isascii():
        return character
    base, *accents = list(unicodedata.normalize("NFD", character))
    if base.isascii() and base.isalpha() and len(accents) == 1 and accents[0] in _ACCENTS:
        return f"\\{_ACCENTS[accents[0]]}{{{base}}}"
    return f"{{[}}U+{ord(character):04X}]"


def comma_separated(sheets: Sequence[Sheet]) -> str:
    """CSV: one header a table, numbers with all their digits, protocols as JSON.

    A word that a spreadsheet would take for a formula begins with an apostrophe.
    """
    return "\n".join(_csv_sheet(sheet) for sheet in sheets)


def _csv_sheet(sheet: Sheet) -> str:
    # Only sheets that compare have protocols to give.
    compares = any(line.protocol for line in sheet.lines)
    head = [*sheet.words, *(heading.name for heading in sheet.headings)]
    head += ["protocol", "differs"] * compares
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(_csv_line(line, compares=compares) for line in sheet.lines)
    return text.getvalue()


def _csv_line(line: Line, *, compares: bool) -> list[str]:
    words = [f"'{word}" if word.startswith(_FORMULA) else word for word in map(plain, line.words)]
    said = [_json(line.protocol), _json(line.differs)] * compares
    return [*words, *(cell.exact for cell in line.cells), *said]


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
