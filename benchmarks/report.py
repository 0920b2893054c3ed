"""Writes a run as JSON and as Markdown: ratios, then times and memory, then what is missing."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measurement import Record
from clcae.files import write_text

SCHEMA = 1  # raised when a key changes its meaning or goes


def write(report: Mapping[str, Any], path: Path) -> None:
    """Writes the report as JSON, whole or not at all."""
    write_text(path, json.dumps(report, indent=2, allow_nan=False) + "\n")


def markdown(report: Mapping[str, Any]) -> str:
    """Formats the machine, the ratios, seconds and memory, and what is missing."""
    rows = [
        (section, record) for section, records in report["sections"].items() for record in records
    ]
    parts = [_machine(report), _ratios(rows), _figures(rows)]
    if report["left_out"]:
        parts.append("Left out:\n\n" + "\n".join(f"- {line}" for line in report["left_out"]))
    return "\n\n".join(part for part in parts if part)


def ratio_text(ratio: Record) -> str:
    """Formats a ratio as 4.56 (4.41 to 4.60), without a spread after a single round."""
    if ratio["low"] == ratio["high"]:
        return _number(ratio["value"])
    return f"{_number(ratio['value'])} ({_number(ratio['low'])} to {_number(ratio['high'])})"


def _machine(report: Mapping[str, Any]) -> str:
    machine, ceilings = report["machine"], report["ceilings"]
    parts = [
        machine["gpu"] or machine["processor"],
        f"{machine['threads']} of {machine['cores']} threads",
        f"torch {machine['torch']}",
        f"python {machine['python']}",
        f"clcae {machine['clcae']}",
        f"freed memory {report['settings']['memory']}",
        report["date"],
    ]
    return (
        f"{', '.join(parts)}. float32 unless said. Ceilings measured in the same run: "
        f"3x3 convolution {ceilings['convolution']:.0f} GFLOP/s, matrix product "
        f"{ceilings['product']:.0f} GFLOP/s, copy {ceilings['copy']:.1f} GB/s."
    )


def _ratios(rows: Sequence[tuple[str, Record]]) -> str:
    cells = [
        (section, record["name"], ratio["title"], f"**{_number(ratio['value'])}**", _spread(ratio))
        for section, record in rows
        for ratio in record["ratios"]
    ]
    cells += [
        (section, record["name"], name, f"**{_number(value)}**", "")
        for section, record in rows
        for name, value in record.get("facts", {}).items()
    ]
    heads = ("section", "group", "ratio", "value", "lowest to highest")
    return _table(heads, cells) if cells else ""


def _figures(rows: Sequence[tuple[str, Record]]) -> str:
    cells = [
        (section, record["name"], name, *_cells(told))
        for section, record in rows
        for name, told in record["variants"].items()
    ]
    heads = ["section", "group", "variant", "time", "lowest to highest", "rounds", "images/s"]
    heads += ["GFLOP/s", "of ceiling", "GB/s", "of copy", "peak MiB"]
    return _table(heads, cells) if cells else ""


def _cells(told: Record) -> list[str]:
    seconds = told["seconds"]

    def number(key: str) -> str:
        return _number(told[key]) if key in told else ""

    def share(key: str) -> str:
        return f"{told[key]:.0%}" if key in told else ""

    unit, factor = _unit(seconds["median"])
    return [
        f"{_number(factor * seconds['median'])} {unit}",
        _spread({key: factor * value for key, value in seconds.items()}),
        str(told["rounds"]),
        number("images_per_second"),
        number("gflop_per_second"),
        share("share_of_convolution"),
        number("gb_per_second"),
        share("share_of_copy"),
        f"{told['peak_mib']['above']:.0f}" if "peak_mib" in told else "",
    ]


def _spread(values: Record) -> str:
    if values["low"] == values["high"]:
        return ""
    return f"{_number(values['low'])} to {_number(values['high'])}"


def _unit(seconds: float) -> tuple[str, float]:
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1.0:
            return unit, factor
    return "µs", 1e6


def _number(value: float) -> str:
    """Formats a number with three significant digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Formats a Markdown table of three columns of words and others of numbers."""
    rules = ["---"] * 3 + ["---:"] * (len(heads) - 3)
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, rules, *rows))
