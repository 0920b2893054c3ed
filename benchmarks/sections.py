"""Lists the sections of scripts/benchmark.py."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.generator import generator_groups, scaling_groups
from benchmarks.inversion import edit_groups, encoder_groups, inversion_groups
from benchmarks.measurement import Group, Ratio, Variant
from benchmarks.neighbours import neighbour_groups
from benchmarks.network_cache import NetworkCache
from benchmarks.operators import operator_groups
from benchmarks.precision import precision_groups, search_groups
from benchmarks.timing import Call
from benchmarks.training import large_training_groups, training_groups


def import_groups(networks: NetworkCache, *, quick: bool) -> Iterator[Group]:
    """Times new interpreters that import the library, or torch alone, and end."""
    yield Group(
        name="import in a new interpreter",
        variants={name: Variant(prepare=partial(_importing, name)) for name in ("clcae", "torch")},
        ratios=[Ratio(["clcae"], ["torch"])],
        most_rounds=2 if quick else 5,
    )


def _importing(name: str) -> Call:
    return lambda: subprocess.run([sys.executable, "-c", f"import {name}"], check=True)


# Name -> what it measures, and what makes its groups of a NetworkCache, quick or not.
SECTIONS: dict[str, tuple[str, Callable[..., Iterator[Group]]]] = {
    "import": ("the library against torch alone", import_groups),
    "generator": (
        "codes to pictures against the textbook's synthesis, at 256, 512 and 1024 px",
        generator_groups,
    ),
    "encoder": ("images to w, W+ and F", encoder_groups),
    "inversion": (
        "image to picture with F, against one encoder pass and one synthesis",
        inversion_groups,
    ),
    "edit": ("changed codes to picture, against one synthesis", edit_groups),
    "training": (
        "one step of each stage against the same step written plainly",
        training_groups,
    ),
    "training-1024": (
        "the same with a 1024 generator; only when it is named: minutes, and 20 GiB",
        large_training_groups,
    ),
    "ops": (
        "each operator against its reference, its plain form, and the speed of a copy",
        operator_groups,
    ),
    "precision": ("bfloat16 against float32, in time and in dB", precision_groups),
    "search": ("a step of the search of F/Z+", search_groups),
    "neighbours": ("beside another program that keeps a core busy", neighbour_groups),
    "scaling": ("more pictures at once, more pixels, more threads", scaling_groups),
}
