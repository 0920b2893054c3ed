"""A case: calls that do the same in different ways, and the ratios that are wanted of them."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from benchmarks.memory import MIB, Peak
from benchmarks.timing import MOST_ROUNDS, Call, interleaved, summary

Quantity = Literal[
    "seconds", "seconds an image", "seconds an operation", "peak memory", "peak memory in all"
]
Record = dict[str, Any]  # as JSON has it


@dataclass(frozen=True)
class Variant:
    """One way of doing it."""

    prepare: Callable[[], Call]  # builds what is needed, outside of the measurement
    images: int | None = None  # of a call
    operations: float | None = None  # floating-point ones of a call
    moved: float | None = None  # bytes that a call has to read and write
    served: str | None = None  # the variant that a process of its own runs, with nothing set


@dataclass(frozen=True)
class Ratio:
    """The sum of some variants over the sum of others."""

    over: Sequence[str]
    under: Sequence[str]
    quantity: Quantity = "seconds"

    @property
    def title(self) -> str:
        """As in: textbook / clcae, seconds."""
        over, under = (" + ".join(names) for names in (self.over, self.under))
        under = f"({under})" if len(self.under) > 1 else under
        return f"{over} / {under}, {self.quantity}"


@dataclass(frozen=True)
class Case:
    """What is measured together."""

    name: str
    variants: Mapping[str, Variant]
    ratios: Sequence[Ratio] = ()
    peaks: Sequence[str] = ()  # variants whose memory is measured
    needs: float = 0.0  # GiB, beyond what the machine has in use
    most_rounds: int = MOST_ROUNDS


def measured(
    case: Case,
    *,
    device: torch.device,
    limit: float,  # seconds, for the rounds of this case
    ceilings: Mapping[str, float],
    peak: Callable[[str], Peak | None],  # of a variant; None where it could not be had
    serve: Callable[[str], Call],  # makes a variant's call in a process of its own
) -> Record:
    """The record of a case: every variant, and every ratio with its spread over the rounds."""
    calls = {
        name: variant.prepare() if variant.served is None else serve(variant.served)
        for name, variant in case.variants.items()
    }
    rounds = interleaved(calls, device=device, limit=limit, most_rounds=case.most_rounds)
    calls.clear()
    peaks = {name: found for name in case.peaks if (found := peak(name)) is not None}
    ratios = [_ratio(ratio, _values(ratio.quantity, case, rounds, peaks)) for ratio in case.ratios]
    return {
        "name": case.name,
        "variants": {
            name: _told(variant, rounds[name], peaks.get(name), ceilings)
            for name, variant in case.variants.items()
        },
        "ratios": [ratio for ratio in ratios if ratio is not None],
    }


def _told(
    variant: Variant,
    seconds: Sequence[float],
    peak: Peak | None,
    ceilings: Mapping[str, float],
) -> Record:
    told: Record = {"seconds": summary(seconds), "rounds": len(seconds)}
    typical = told["seconds"]["median"]
    if variant.images is not None:
        told["images"] = variant.images
        told["images_per_second"] = variant.images / typical
    if variant.operations is not None:
        told["gflop"] = variant.operations / 1e9
        told["gflop_per_second"] = variant.operations / 1e9 / typical
        told["share_of_convolution"] = told["gflop_per_second"] / ceilings["convolution"]
    if variant.moved is not None:
        told["gb_per_second"] = variant.moved / 1e9 / typical
        told["share_of_copy"] = told["gb_per_second"] / ceilings["copy"]
    if peak is not None:
        told["peak_mib"] = {"above": peak.above / MIB, "whole": peak.whole / MIB}
    return told


def _ratio(ratio: Ratio, values: Mapping[str, Sequence[float]]) -> Record | None:
    """From values by variant, one a round; None where a variant has none."""
    if not values.keys() >= {*ratio.over, *ratio.under}:
        return None
    over, under = ([values[name] for name in names] for names in (ratio.over, ratio.under))
    by_round = [
        sum(above) / sum(below)
        for above, below in zip(zip(*over, strict=True), zip(*under, strict=True), strict=True)
    ]
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
    case: Case,
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
        for name, variant in case.variants.items()
    }
    return {
        name: [each / (amounts[name] or 1) for each in seconds] for name, seconds in rounds.items()
    }
