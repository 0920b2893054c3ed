"""Rows of runs repeated with several seeds, and their differences from a reference by seed."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clcae.evaluation.rows import read_rows
from clcae.tables.comparison import MeasuredRow
from clcae.tables.published import PaperTable


def repeated_rows(table: PaperTable, folder: Path) -> list[MeasuredRow]:
    """Reads the rows of every finished run of a table's variants, in folders that end in seedN."""
    found = []
    for variant, method in table.variants.items():
        for path in sorted(folder.glob(f"{str(table.runs).format(variant=variant)}/table.json")):
            if match := re.search(r"seed(\d+)$", path.parent.name):
                found += [
                    MeasuredRow(replace(row, method=method, extra={"seed": match[1]}), str(path))
                    for row in read_rows(path)
                ]
    return found


def differences(measured: Sequence[MeasuredRow], *, reference: str) -> list[MeasuredRow]:
    """Subtracts from every row the reference's row of the same seed and space.

    Rows without such a partner are left out.

    Args:
        measured: rows of `repeated_rows`.
        reference: method whose rows are subtracted.
    """
    partners = {
        (one.row.space, one.row.extra["seed"]): one.row.metrics
        for one in measured
        if one.row.method == reference
    }
    result = []
    for one in measured:
        partner = partners.get((one.row.space, one.row.extra["seed"]))
        if partner is not None and one.row.method != reference:
            shared = one.row.metrics.keys() & partner.keys()
            metrics = {name: one.row.metrics[name] - partner[name] for name in shared}
            result.append(replace(one, row=replace(one.row, metrics=metrics)))
    return result
