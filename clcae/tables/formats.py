"""Writes tables as Markdown, LaTeX and CSV; whatever a row says is text there, never markup.

LaTeX needs booktabs alone. It is ASCII, for any encoding and engine; characters that plain LaTeX
cannot set are written as [U+4E2D].
"""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Sequence

from clcae.tables.sheet import Cell, Mark, Sheet, plain

BLANK = "-"

# fmt: off
_LATEX = {
    "\\": "\\textbackslash{}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_",
    "{": "\\{", "}": "\\}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}",
    "<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}", "`": "\\textasciigrave{}",
    "[": "{[}", "*": "{*}",  # after \\ the first would begin an argument, the second change it
    "±": "$\\pm$", "×": "$\\times$", "↑": "$\\uparrow$", "↓": "$\\downarrow$",
    "†": "$\\dagger$", "‡": "$\\ddagger$", "σ": "$\\sigma$", "–": "--", "—": "---",
    '"': "''", "‘": "`", "’": "'", "“": "``", "”": "''", "…": "\\ldots{}", "ß": "\\ss{}",
    "æ": "\\ae{}", "Æ": "\\AE{}", "ø": "\\o{}", "Ø": "\\O{}", "ł": "\\l{}", "Ł": "\\L{}",
}
_ACCENTS = {  # combining character -> LaTeX's command
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u",
    "\u0307": ".", "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c",
}
# fmt: on
_FORMULA = ("=", "+", "-", "@")  # what a spreadsheet would compute


def markdown(sheets: Sequence[Sheet]) -> str:
    """Writes tables in Markdown, the best in bold, with their notes below."""
    return "\n".join(_markdown_sheet(sheet) for sheet in sheets)


def markdown_table(sheet: Sheet) -> str:
    """Writes the lines of a table in Markdown, without its title and notes."""
    head = [_markdown_text(text) for text in (*sheet.words, *map(str, sheet.headings))]
    rule = ["---"] * len(sheet.words) + ["---:"] * len(sheet.headings)
    lines = [
        [_markdown_text(word) or BLANK for word in line.words] + [*map(_markdown_cell, line.cells)]
        for line in sheet.lines
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, rule, *lines))


def _markdown_sheet(sheet: Sheet) -> str:
    parts = [f"{_markdown_text(sheet.title)}\n"]
    if sheet.source:
        parts.append(f"Source: {_markdown_text(sheet.source)}\n")
    parts.append(markdown_table(sheet))
    footnotes = [f"{mark} {text}" for mark, text in sheet.footnotes]
    for title, texts in (
        ("", footnotes),
        ("Protocol:\n\n", sheet.protocol),
        ("Notes:\n\n", sheet.notes),
    ):
        if texts:
            parts.append(title + "".join(f"- {_markdown_text(text)}\n" for text in texts))
    return "\n".join(parts)


def _markdown_cell(cell: Cell) -> str:
    if not cell.text:
        return BLANK
    text = f"**{cell.text}**" if cell.best else cell.text
    return f"{text} {cell.mark}" if cell.mark else text


def _markdown_text(text: str) -> str:
    """Escapes a text: no cell ends and no emphasis, link, code or HTML begins."""
    text = re.sub(r"([\\`*<>|~]|\](?=[(\[:]))", r"\\\1", plain(text))
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)  # within words it is no emphasis
    text = re.sub(r"&(?=[#\w]+;)", r"\\&", text)
    return re.sub(r"(?i)(www)\.|://", lambda m: f"{m[1]}\\." if m[1] else "\\://", text)


def latex(sheets: Sequence[Sheet]) -> str:
    """Writes tables in LaTeX (booktabs), the best in bold, with their notes in small print."""
    return "\n".join(_latex_sheet(sheet) for sheet in sheets)


def _latex_sheet(sheet: Sheet) -> str:
    head = [latex_text(text) for text in (*sheet.words, *map(str, sheet.headings))]
    lines = [
        [latex_text(word) or "--" for word in line.words] + [*map(_latex_cell, line.cells)]
        for line in sheet.lines
    ]
    top, *rows = (" & ".join(line) + " \\\\\n" for line in (head, *lines))
    columns = "l" * len(sheet.words) + "r" * len(sheet.headings)
    return (
        f"% {plain(sheet.title)}; needs booktabs\n"
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{top}\\midrule\n"
        f"{''.join(rows)}\\bottomrule\n\\end{{tabular}}\n{_latex_notes(sheet)}"
    )


def _latex_notes(sheet: Sheet) -> str:
    notes = [f"{_latex_mark(mark)} {latex_text(text)}" for mark, text in sheet.footnotes]
    notes += [f"Source: {latex_text(sheet.source)}"] if sheet.source else []
    notes += [latex_text(text) for text in (*sheet.protocol, *sheet.notes)]
    if not notes:
        return ""
    lines = "".join(f"{note}\\par\n" for note in notes)
    return f"\\par\\smallskip\n{{\\footnotesize\n{lines}}}\n"


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
    """Escapes a text for LaTeX, in ASCII; none of it is a command."""
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
    """Writes tables as CSV: one header each, numbers with all digits, protocols as JSON.

    A word that a spreadsheet would take for a formula begins with an apostrophe.
    """
    return "\n".join(_csv_sheet(sheet) for sheet in sheets)


def _csv_sheet(sheet: Sheet) -> str:
    compares = any(line.protocol for line in sheet.lines)
    head = [*sheet.words, *(heading.name for heading in sheet.headings)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head + ["protocol", "differs"] * compares)
    for line in sheet.lines:
        words = [f"'{w}" if w.startswith(_FORMULA) else w for w in map(plain, line.words)]
        protocols = [json.dumps(each, ensure_ascii=False) for each in (line.protocol, line.differs)]
        writer.writerow([*words, *(cell.exact for cell in line.cells), *protocols * compares])
    return text.getvalue()
