"""Reads tables of papers: their rows, and what is known of the protocol behind every column.

`configs/table/NAME.yaml` holds one. Numbers stay text as the paper prints them, so that no digit is
lost or made up; `null` is a number, or a field of a protocol, that nobody knows.

A protocol states what would change a value, in the words of measured rows (`Row.protocol`):
`images` and `num_images`, `resolution` ("256 x 256", height first), `resize`, `scale` and `levels`,
`files`, `network`, `implementation`, `window`; of edits `edit` and `strength`; of times `device`
and `batch`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

UNKNOWN, NOT_APPLICABLE = "null", "n/a"
DIRECTIONS = ("higher", "lower")
_KEYS = {"title", "source", "protocol", "columns", "rows", "notes", "figure"}
_KEYS |= {"runs", "results", "variants", "reference"}
_SOURCE_KEYS = ("paper", "table", "arxiv", "provenance")
OVER_DISTORTION = ("editability", "perception", "response")
_COLUMN_KEYS = {"metrics", "better", "decimals", "factor", "minus", "protocol"}
_ROW_KEYS = {"values", "provenance", "note"}


@dataclass(frozen=True)
class Column:
    """One metric of a table."""

    name: str  # as in the paper
    metrics: tuple[str, ...]  # names in measured rows; the first that a row has counts
    direction: str  # "higher" or "lower" is better
    decimals: int  # of measured values; values that are equal there are equal
    protocol: Mapping[str, str | None]  # field -> words of the table; None: unknown
    factor: float = 1.0  # for measured values: 0.001 for seconds from milliseconds
    minus: str = ""  # a metric that is subtracted from measured values


@dataclass(frozen=True)
class PublishedRow:
    """One method of a paper."""

    method: str
    values: tuple[Decimal | None, ...]  # as printed, one a column; None: blank
    provenance: str = ""  # where the numbers were read, if not in the paper's own text
    note: str = ""  # whatever sets this row apart


@dataclass(frozen=True)
class PaperTable:
    """A table of a paper, or of this project's runs where it has no rows.

    Args:
        source: paper, table, arXiv number and provenance, in words.
        columns: its metrics.
        rows: its methods, in order.
        axes: "distortion" and some of OVER_DISTORTION -> column, if it has them.
        runs: pattern of the run folders to take rows from; None takes them only when asked.
        variants: name in the run folders -> method, for runs repeated with several seeds; `runs`
            has {variant} in place of the name.
        reference: variant from which the others are subtracted, seed by seed.
        results: file of rows below the folder of runs, to be pooled over seeds and lists of images;
            None for a table that shows its rows one by one.
    """

    title: str
    source: str
    columns: tuple[Column, ...]
    rows: tuple[PublishedRow, ...]
    notes: tuple[str, ...] = ()
    axes: Mapping[str, str] = field(default_factory=dict)
    runs: str | None = None
    variants: Mapping[str, str] = field(default_factory=dict)
    reference: str | None = None
    results: str | None = None


def read_paper_table(path: str | Path) -> PaperTable:
    """Reads a table of `configs/table`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no YAML, a key is missing or unknown, a row has more or fewer values
            than there are columns, or a value is no number.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such table")
    try:
        values = OmegaConf.to_container(OmegaConf.load(path))
        _check_keys("the table", values, _KEYS, {"title", "source", "columns", "rows"})
        return _table(values)  # type: ignore[arg-type]
    except (
        *(ValueError, TypeError, KeyError, AttributeError),
        *(YAMLError, OmegaConfBaseException),
    ) as error:
        raise ValueError(f"{path}: no table: {' '.join(str(error).split())}") from error


def _table(values: Mapping[str, Any]) -> PaperTable:
    _check_keys("source", values["source"], {*_SOURCE_KEYS}, {*_SOURCE_KEYS})
    shared = values.get("protocol") or {}
    columns = tuple(_column(name, entry, shared) for name, entry in values["columns"].items())
    source = dict(values["source"])
    provenance = source["provenance"] or ""
    source["arxiv"] = source["arxiv"] and f"arXiv {source['arxiv']}"
    said = [source[key] for key in _SOURCE_KEYS if source[key]]
    rows = tuple(
        _row(str(name), entry, len(columns), provenance) for name, entry in values["rows"].items()
    )
    axes = dict(values.get("figure") or {})
    names = {column.name for column in columns}
    if axes:
        _check_keys("figure", axes, {"distortion", *OVER_DISTORTION}, {"distortion"})
        axes = {name: axes[name] for name in ("distortion", *OVER_DISTORTION) if name in axes}
        if len(axes) < 2:
            raise ValueError(f"figure lacks {' or '.join(OVER_DISTORTION)}")
        if not set(axes.values()) <= names:
            raise ValueError(f"figure has axes {axes}: expected columns ({', '.join(names)})")
    return PaperTable(
        title=values["title"],
        source=", ".join(said),
        columns=columns,
        rows=rows,
        notes=tuple(values.get("notes") or ()),
        axes=axes,
        runs=values.get("runs"),
        variants=values.get("variants") or {},
        reference=values.get("reference"),
        results=values.get("results"),
    )


def _column(name: str, values: Mapping[str, Any], shared: Mapping[str, Any]) -> Column:
    _check_keys(f"column {name}", values, _COLUMN_KEYS, {"metrics", "better", "decimals"})
    if values["better"] not in DIRECTIONS:
        raise ValueError(f"column {name}: better is {values['better']!r}: expected {DIRECTIONS}")
    protocol = {**shared, **(values.get("protocol") or {})}
    return Column(
        name=name,
        metrics=tuple(values["metrics"]),
        direction=values["better"],
        decimals=int(values["decimals"]),
        protocol={
            key: None if stated is None else str(stated)
            for key, stated in protocol.items()
            if stated != NOT_APPLICABLE
        },
        factor=float(values.get("factor", 1.0)),
        minus=str(values.get("minus", "")),
    )


def _row(method: str, entry: Any, count: int, provenance: str) -> PublishedRow:
    if not isinstance(entry, Mapping):
        entry = {"values": entry}
    _check_keys(f"row {method}", entry, _ROW_KEYS, {"values"})
    texts = str(entry["values"]).split()
    if len(texts) != count:
        raise ValueError(f"row {method} has {len(texts)} values for {count} columns")
    return PublishedRow(
        method=method,
        values=tuple(_number(method, text) for text in texts),
        provenance=entry.get("provenance") or provenance,
        note=entry.get("note") or "",
    )


def _number(method: str, text: str) -> Decimal | None:
    if text == UNKNOWN:
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise ValueError(f"row {method}: {text!r} is no number; an unknown one is {UNKNOWN}")
    return number


def _check_keys(what: str, values: Any, known: set[str], needed: set[str]) -> None:
    if not isinstance(values, Mapping):
        raise ValueError(f"{what} is {values!r}: expected keys {', '.join(sorted(known))}")
    if unknown := sorted(map(str, values.keys() - known)):
        raise ValueError(f"{what} has unknown keys {', '.join(unknown)}")
    if missing := sorted(needed - values.keys()):
        raise ValueError(f"{what} lacks {', '.join(missing)}")
