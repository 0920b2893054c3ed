"""The group of importing: the library against torch alone, each in a new interpreter."""

import subprocess
import sys
from collections.abc import Iterator
from functools import partial

from benchmarks.measurement import Group, Ratio, Variant
from benchmarks.network_cache import NetworkCache
from benchmarks.timing import Call


def import_groups(networks: NetworkCache, *, quick: bool) -> Iterator[Group]:
    """Times interpreters that import a package and end."""
    yield Group(
        name="import in a new interpreter",
        variants={name: Variant(prepare=partial(_importing, name)) for name in ("clcae", "torch")},
        ratios=[Ratio(["clcae"], ["torch"])],
        most_rounds=2 if quick else 5,
    )


def _importing(name: str) -> Call:
    return lambda: subprocess.run([sys.executable, "-c", f"import {name}"], check=True)
