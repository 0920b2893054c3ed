"""Lists the sections of scripts/benchmark.py and finds the variants in them by name."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from benchmarks.generator import generator_groups, scaling_groups
from benchmarks.imports import import_groups
from benchmarks.inversion import edit_groups, encoder_groups, inversion_groups
from benchmarks.measurement import Group
from benchmarks.network_cache import NetworkCache
from benchmarks.operators import operator_groups
from benchmarks.timing import Call
from benchmarks.training import large_training_groups, training_groups
from clcae.ops.memory import keep_freed_memory

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
    "scaling": ("more pictures at once, more pixels, more threads", scaling_groups),
}
DEFAULT = [name for name in SECTIONS if name != "training-1024"]


def groups(section: str, networks: NetworkCache, *, quick: bool) -> Iterator[Group]:
    """Yields the groups of a section."""
    return SECTIONS[section][1](networks, quick=quick)


@dataclass(frozen=True, kw_only=True)
class VariantAddress:
    """Names a variant, with all that a new process needs to make its call."""

    section: str
    group: str
    variant: str
    device: torch.device
    threads: int
    quick: bool
    memory_kept: bool  # whether the process keeps the memory that it frees

    def prepare(self) -> Call:
        """Makes the call, after setting up this process for it."""
        if self.memory_kept:
            keep_freed_memory()
        torch.set_num_threads(self.threads)
        found = groups(self.section, NetworkCache(device=self.device), quick=self.quick)
        group = next(group for group in found if group.name == self.group)
        return group.variants[self.variant].prepare()
