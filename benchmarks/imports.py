"""The case of importing: the library against torch alone, in interpreters that start anew."""

import subprocess
import sys
from collections.abc import Iterator

from benchmarks.case import Case, Ratio, Variant
from benchmarks.networks import Networks
from benchmarks.timing import Call


def import_cases(networks: Networks, *, quick: bool) -> Iterator[Case]:
    """Seconds from the start of an interpreter to its end."""
    yield Case(
        name="import in a new interpreter",
        variants={
            name: Variant(prepare=lambda name=name: _importing(name))  # type: ignore[misc]
            for name in ("clcae", "torch")
        },
        ratios=[Ratio(["clcae"], ["torch"])],
        most_rounds=2 if quick else 5,
    )


def _importing(name: str) -> Call:
    command = [sys.executable, "-c", f"import {name}"]
    return lambda: subprocess.run(command, check=True)
