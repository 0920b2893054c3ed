"""Measures variants that do the same in different ways, and the ratios between them."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from benchmarks.memory import MIB, Peak
from benchmarks.timing import MOST_ROUNDS, Call, interleaved, summary
from benchmarks.workers import Worker

Quantity = Literal[
    "seconds", "seconds an image", "seconds an operation", "peak memory", "peak memory in all"
]
Record = dict[str, Any]  # as in the JSON file


@dataclass(frozen=True)
class Variant:
    """One way to do the work."""

    prepare: Callable[[], Call]  # builds what is needed, outside of the measurement
    images: int | None = None  # of a call
    operations: float | None = None  # floating-point operations of a call
    moved: float | None = None  # bytes that a call has to read and write
    apart: bool = False  # runs in a process of its own, which does not keep freed memory
    warmed: bool = False  # whether it runs once, untimed, before each timing


@dataclass(frozen=True)
class Ratio:
    """The sum of some variants over the sum of others."""

    over: Sequence[str]
    under: Sequence[str]
    quantity: Quantity = "seconds"

    @property
    def title(self) -> str:
        """Title such as "textbook / clcae, seconds"."""
        over, under = (" + ".join(names) for names in (self.over, self.under))
        under = f"({under})" if len(self.under) > 1 else under
        return f"{over} / {under}, {self.quantity}"


@dataclass(frozen=True)
class Group:
    """Variants that are timed alternately in one run, with the ratios wanted of them."""

    name: str
    variants: Mapping[str, Variant]
    ratios: Sequence[Ratio] = ()
    peaks: Sequence[str] = ()  # variants whose memory is measured
    needs: float = 0.0  # GiB beyond what the machine has in use
    most_rounds: int = MOST_ROUNDS
    facts: Mapping[str, Callable[[], float]] = field(default_factory=dict)  # of the results


def measure(
    group: Group,
    *,
    device: torch.device,
    limit: float,
    ceilings: Mapping[str, float],
    peak: Callable[[str], Peak | None],
) -> Record:
    """Measures a group: every variant, and every ratio with its spread over the rounds.

    `limit` is the seconds for the rounds, `ceilings` those of `measure_ceilings`; `peak` measures a
    variant's peak memory, None if that failed.
    """
    calls: dict[str, Call] = {
        name: Worker(each.prepare, memory_kept=False) if each.apart else each.prepare()
        for name, each in group.variants.items()
    }
    # A process of its own sleeps between calls, and its memory has gone elsewhere meanwhile.
    warmed = {name for name, each in group.variants.items() if each.warmed or each.apart}
    rounds = interleaved(
        calls, device=device, limit=limit, most_rounds=group.most_rounds, warmed=warmed
    )
    calls.clear()
    peaks = {name: found for name in group.peaks if (found := peak(name)) is not None}
    ratios = [
        _ratio(ratio, _values(ratio.quantity, group, rounds, peaks)) for ratio in group.ratios
    ]
    facts = {name: fact() for name, fact in group.facts.items()}
    return {
        "name": group.name,
        "variants": {
            name: _record(variant, rounds[name], peaks.get(name), ceilings)
            for name, variant in group.variants.items()
        },
        "ratios": [ratio for ratio in ratios if ratio is not None],
        **({"facts": facts} if facts else {}),
    }


def _record(
    variant: Variant, seconds: Sequence[float], peak: Peak | None, ceilings: Mapping[str, float]
) -> Record:
    record: Record = {"seconds": summary(seconds), "rounds": len(seconds)}
    typical = record["seconds"]["median"]
    if variant.images is not None:
        record["images"] = variant.images
        record["images_per_second"] = variant.images / typical
    if variant.operations is not None:
        record["gflop"] = variant.operations / 1e9
        record["gflop_per_second"] = variant.operations / 1e9 / typical
        record["share_of_convolution"] = record["gflop_per_second"] / ceilings["convolution"]
    if variant.moved is not None:
        record["gb_per_second"] = variant.moved / 1e9 / typical
        record["share_of_copy"] = record["gb_per_second"] / ceilings["copy"]
    if peak is not None:
        record["peak_mib"] = {"above": peak.above / MIB, "whole": peak.whole / MIB}
    return record


def _ratio(ratio: Ratio, values: Mapping[str, Sequence[float]]) -> Record | None:
    """Computes a ratio from values by variant, one a round; None if a variant has none."""
    if not values.keys() >= {*ratio.over, *ratio.under}:
        return None
    over, under = ([values[name] for name in names] for names in (ratio.over, ratio.under))
    above, below = (map(sum, zip(*each, strict=True)) for each in (over, under))
    by_round = [a / b for a, b in zip(above, below, strict=True)]
    return {
        "title": ratio.title,
        "over": list(ratio.over),
        "under": list(ratio.under),
        "quantity": ratio.quantity,
        "value": sum(map(statistics.median, over)) / sum(map(statistics.median, under)),
        "low": min(by_round),
        "high": max(by_round),
    }


def _values(
    quantity: Quantity,
    group: Group,
    rounds: Mapping[str, Sequence[float]],
    peaks: Mapping[str, Peak],
) -> Mapping[str, Sequence[float]]:
    if quantity == "peak memory":
        return {name: [float(max(peak.above, 1))] for name, peak in peaks.items()}
    if quantity == "peak memory in all":
        return {name: [float(peak.whole)] for name, peak in peaks.items()}
    if quantity == "seconds":
        return rounds
    amounts = {
        name: variant.operations if quantity == "seconds an operation" else variant.images
        for name, variant in group.variants.items()
    }
    return {
        name: [each / (amounts[name] or 1) for each in seconds] for name, seconds in rounds.items()
    }
