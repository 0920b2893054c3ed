"""Runs repeated under several seeds: mean and spread, and differences paired by seed."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clcae.evaluation.rows import Row

Runs = Mapping[str, Sequence[Row]]  # seed -> the rows of its run


@dataclass(frozen=True)
class Spread:
    """Values of one metric over the seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Arithmetic mean."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float:
        """Sample standard deviation; NaN for one value."""
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan

    def text(self, decimals: int, *, signed: bool = False) -> str:
        """Mean ± deviation."""
        mean = f"{self.mean:{'+' if signed else ''}.{decimals}f}"
        deviation = self.deviation
        return mean if math.isnan(deviation) else f"{mean} ± {deviation:.{decimals}f}"


def spaces(runs: Runs) -> list[str]:
    """The spaces of the runs, which all have the same.

    Raises:
        ValueError: they do not, or judged other numbers of images.
    """
    found = {tuple(row.space for row in rows) for rows in runs.values()}
    counts = {row.num_images for rows in runs.values() for row in rows}
    if len(found) != 1 or len(counts) != 1:
        raise ValueError(
            f"the runs have spaces {sorted(found)} and {sorted(counts)} images, expected the same "
            "of all"
        )
    return list(found.pop())


def spread(runs: Runs, *, space: str, metric: str) -> Spread:
    """A metric in a space, over the seeds."""
    return Spread(tuple(_value(runs[seed], space, metric) for seed in sorted(runs)))


def difference(runs: Runs, reference: Runs, *, space: str, metric: str) -> Spread:
    """Run minus reference of the same seed, over the seeds that both have.

    Raises:
        ValueError: they share no seed.
    """
    shared = sorted(runs.keys() & reference.keys())
    if not shared:
        raise ValueError(f"seeds {sorted(runs)} and {sorted(reference)} have none in common")
    return Spread(
        tuple(
            _value(runs[seed], space, metric) - _value(reference[seed], space, metric)
            for seed in shared
        )
    )


def _value(rows: Sequence[Row], space: str, metric: str) -> float:
    for row in rows:
        if row.space == space:
            if metric not in row.metrics:
                known = ", ".join(row.metrics)
                raise ValueError(f"{row.method} in {space} has no {metric}, it has {known}")
            return row.metrics[metric]
    raise ValueError(f"there is no row of {space}, only of {', '.join(row.space for row in rows)}")
