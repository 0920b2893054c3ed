"""Writes tables as one HTML page: light and dark, for a phone and a desk, with nothing to load.

Pictures are data URIs and columns sort by a few lines of script. A content security policy in the
page forbids everything else, so that no row can make it fetch or run anything.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape

from clcae.tables.sheet import Cell, Line, Mark, Sheet, plain

# What a picture begins with, by type; other files are refused.
_SIGNATURES = {"image/png": b"\x89PNG\r\n\x1a\n", "image/svg+xml": b"<?xml"}

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2127; --paper: #fff; --soft: #5c6570;
  --line: #d9dde2; --best: #0b6b3a; --own: #fff4ea; --mark: #b3390c; --hover: #eef2f6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --paper: #15181c; --soft: #9aa4af;
  --line: #333a42; --best: #6fd39b; --own: #2a2118; --mark: #ff9d6b; --hover: #20262d; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 3rem; max-width: 80rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif;
  overflow-wrap: anywhere; }
h1, h2 { line-height: 1.25; margin: 1.6rem 0 .3rem; font-size: 1.35rem; }
h1 { margin-top: 0; font-size: 1.6rem; }
summary { margin: 1.2rem 0 .3rem; font-weight: 600; cursor: pointer; }
p, li { color: var(--soft); font-size: .9rem; margin: .25rem 0; }
ul, ol { padding-left: 1.2rem; margin: .3rem 0; }
.notes { list-style: none; padding: 0; }
.table { overflow-x: auto; border: 1px solid var(--line); border-radius: .5rem; margin: 1rem 0; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .7rem; border-bottom: 1px solid var(--line); text-align: left;
  white-space: nowrap; background: var(--paper); }
tbody tr:last-child > * { border-bottom: 0; }
td.number, th.number { text-align: right; }
td.word, tbody th { white-space: normal; overflow-wrap: break-word; max-width: 14rem; }
td.last { color: var(--soft); min-width: 7.5rem; }
tbody th { position: sticky; left: 0; font-weight: 600; min-width: 7rem; }
@media (max-width: 40rem) { th, td { padding: .4rem .5rem; } table { font-size: .85rem; }
  td.word, tbody th { max-width: 9.5rem; } }
tr.measured > * { background: var(--own); }
thead button { all: unset; cursor: pointer; font-weight: 600; }
thead th { vertical-align: bottom; overflow-wrap: normal; }
thead th.number { white-space: normal; }
thead button:focus-visible { outline: 2px solid currentColor; outline-offset: 2px; }
thead th:hover { background: var(--hover); }
th[aria-sort=ascending] button::after { content: " ▴"; }
th[aria-sort=descending] button::after { content: " ▾"; }
.best { color: var(--best); font-weight: 700; }
sup a { color: var(--mark); text-decoration: none; font-size: .75rem; padding-left: .15rem; }
.notes li:target { color: var(--ink); }
.figures { display: grid; gap: 1.5rem; margin: 1.5rem 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; }
figure img { max-width: 100%; height: auto; border-radius: .3rem; background: #fff; }
figcaption { color: var(--soft); font-size: .9rem; }
"""

_SCRIPT = """
document.querySelectorAll("thead button").forEach(function (button) {
  button.addEventListener("click", function () {
    var head = button.closest("th"), body = head.closest("table").tBodies[0];
    var column = head.cellIndex, was = head.getAttribute("aria-sort");
    var way = was ? (was === "ascending" ? -1 : 1) : Number(head.dataset.first);
    head.parentNode.querySelectorAll("th").forEach(function (other) {
      other.removeAttribute("aria-sort");
    });
    head.setAttribute("aria-sort", way === 1 ? "ascending" : "descending");
    var number = head.classList.contains("number");
    function key(row) {
      var cell = row.cells[column];
      return number ? cell.dataset.value : cell.textContent.trim().toLowerCase();
    }
    Array.from(body.rows).sort(function (a, b) {
      var x = key(a), y = key(b);
      if (!x || !y) { return (x ? 0 : 1) - (y ? 0 : 1); }
      return way * (number ? x - y : x.localeCompare(y));
    }).forEach(function (row) { body.appendChild(row); });
  });
});
"""


def page(
    sheets: Sequence[Sheet],
    *,
    figures: Mapping[str, bytes],
    pictures: Mapping[str, bytes],
) -> str:
    """Writes one HTML page.

    The first sheet gives the title; figures are caption -> SVG, pictures caption -> PNG.

    Raises:
        ValueError: if a picture is of another type.
    """
    shown = [_figure(caption, "image/svg+xml", data) for caption, data in figures.items()]
    shown += [_figure(caption, "image/png", data) for caption, data in pictures.items()]
    parts = list[str]()
    for number, sheet in enumerate(sheets):
        parts.append(_sheet(sheet, number))
        if number == 0 and shown:  # before what is read last
            parts.append(f'<div class="figures">\n{"".join(shown)}</div>\n')
        parts.append(f"{_list('Notes', sheet.notes)}{_list('Protocol', sheet.protocol)}")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src "
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}\'unsafe-inline\'">\n'
        f"<title>{_text(sheets[0].title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"{''.join(parts)}<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def data_uri(data: bytes, kind: str, *, name: str) -> str:
    """Encodes a picture for use within a page. Raises ValueError if it is not of this kind."""
    if not data.startswith(_SIGNATURES[kind]):
        raise ValueError(f"{name}: expected a picture of type {kind}")
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _sheet(sheet: Sheet, number: int) -> str:
    level = "h1" if number == 0 else "h2"
    # On a phone the numbers are to be seen first, where they are from last.
    leading = sheet.words.index("source") if "source" in sheet.words else len(sheet.words)
    heads = [
        f'<th scope="col" data-first="1"><button>{_text(name)}</button></th>'
        for name in sheet.words
    ]
    heads[leading:leading] = [
        f'<th scope="col" class="number" data-first="{-1 if heading.direction == "higher" else 1}">'
        f"<button>{_text(str(heading))}</button></th>"  # the best comes first
        for heading in sheet.headings
    ]
    lines = "".join(_line(line, leading, number) for line in sheet.lines)
    source = f"<p>Source: {_text(sheet.source)}</p>\n" if sheet.source else ""
    return (
        f'<{level}>{_text(sheet.title)}</{level}>\n{source}<div class="table"><table>\n'
        f"<thead><tr>{''.join(heads)}</tr></thead>\n<tbody>\n{lines}</tbody>\n</table></div>\n"
        f"{_footnotes(sheet, number)}"
    )


def _line(line: Line, leading: int, number: int) -> str:
    texts = [_text(word) or "–" for word in line.words]
    cells = [f'<th scope="row">{texts[0]}</th>']
    cells += [f'<td class="word">{text}</td>' for text in texts[1:leading]]
    cells += [_cell(cell, number) for cell in line.cells]
    cells += [f'<td class="word last">{text}</td>' for text in texts[leading:]]
    kind = ' class="measured"' if line.measured else ""
    return f"<tr{kind}>{''.join(cells)}</tr>\n"


def _cell(cell: Cell, number: int) -> str:
    value = "" if cell.value is None else f"{cell.value:.12g}"
    text = _text(cell.text) or "–"
    text = f'<span class="best">{text}</span>' if cell.best else text
    if cell.mark:
        text += f'<sup><a href="#{_anchor(cell.mark, number)}">{cell.mark}</a></sup>'
    return f'<td class="number" data-value="{value}">{text}</td>'


def _anchor(mark: Mark, number: int) -> str:
    return f"note-{number}-{mark.number}"


def _footnotes(sheet: Sheet, number: int) -> str:
    items = [
        f'<li id="{_anchor(mark, number)}">{mark} {_text(text)}</li>\n'
        for mark, text in sheet.footnotes
    ]
    return f'<ol class="notes">\n{"".join(items)}</ol>\n' if items else ""


def _list(title: str, texts: Sequence[str]) -> str:
    items = "".join(f"<li>{_text(text)}</li>\n" for text in texts)
    if not items:
        return ""
    return f"<details open><summary>{title}</summary>\n<ul>\n{items}</ul>\n</details>\n"


def _figure(caption: str, kind: str, data: bytes) -> str:
    source, text = data_uri(data, kind, name=caption), _text(caption)
    return f'<figure><img src="{source}" alt="{text}">\n<figcaption>{text}</figcaption></figure>\n'


def _text(text: str) -> str:
    return escape(plain(text), quote=True)
