"""Accumulates every metric of every space over batches of observations, and makes rows of them.

Every image counts, also those of the last, smaller batch; an image that a metric cannot judge is
named in the row. (Official scripts drop both in silence.)
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from clcae.evaluation.preparation import Preparation, Size
from clcae.evaluation.rows import Row, software_versions
from clcae.metrics.metric import LabelledMetric, Metric

Pair = tuple[Tensor, Tensor]  # what is judged [N, ...], what it is compared with [N, ...]
Observations = Mapping[str, Mapping[str, Pair]]  # space -> stream -> what metrics read

RECONSTRUCTION = "reconstruction"  # the stream of reconstructions and inputs
AGAIN = "codes again"  # codes of the reconstruction, inverted again, and those it was made of
_AS_THEY_ARE = Preparation()


def codes_of(edit: str) -> str:
    """Names the stream of codes after an edit was undone and before it."""
    return f"codes of {edit}"


def beside_drift_of(edit: str) -> str:
    """Names the stream of `codes_of` an edit, with the rows of `AGAIN` below them."""
    return f"codes of {edit} and again"


def response_of(edit: str) -> str:
    """Names the stream of what an edit of generated codes changes in their inversion, and of it."""
    return f"response to {edit}"


def unedited_of(edit: str) -> str:
    """Names the stream of edited pictures and the same method's unedited reconstructions."""
    return f"unedited, {edit}"


@dataclass(frozen=True)
class Measure:
    """One column of the result: a metric, what it reads, and how that is prepared.

    Args:
        make: makes a fresh metric; its networks are shared.
        preparation: preprocessing of the pictures of both sides; None for codes.
        stream: which pair of an observation it takes.
        words: what the row says of it besides; replaces words of the metric.
        reason: why an item does not count, where the metric says that it does not.
        labels: name of an image -> 1 or 0, for a `LabelledMetric`; an image that is not among them
            does not count. None where the metric labels its images itself.
    """

    make: Callable[[], Metric]
    preparation: Preparation | None = _AS_THEY_ARE
    stream: str = RECONSTRUCTION
    words: Mapping[str, str] = field(default_factory=dict)
    reason: str = "the metric cannot judge it"
    labels: Mapping[str, float] | None = None

    def enter(
        self, metric: Metric, outputs: Tensor, targets: Tensor, names: Sequence[str]
    ) -> Tensor:
        """Updates the metric with a batch; returns which of its items count, [N] bool."""
        if self.labels is None:
            return metric.update(outputs, targets)
        assert isinstance(metric, LabelledMetric)
        labels = torch.tensor([self.labels.get(name, math.nan) for name in names])
        return metric.update_labelled(outputs, targets, labels)


class Tally:
    """The metrics of every space, and the images that they could not judge."""

    def __init__(self, measures: Mapping[str, Measure]) -> None:
        self.measures = dict(measures)
        self.metrics: dict[str, dict[str, Metric]] = {}  # space -> name -> metric
        self.skipped: dict[str, dict[str, list[str]]] = {}
        self.shapes: dict[str, Size] = {}  # stream -> height and width before any preparation

    @torch.no_grad()
    def update(self, observations: Observations, names: Sequence[str]) -> None:
        """Accumulates a batch of named images: for each space and stream a pair.

        Pictures are clamped to [-1, 1], as a file would.

        Raises:
            ValueError: if the spaces are others than before, a picture is not finite, or a metric
                refuses what it is given.
        """
        if not self.metrics:
            self._begin(observations)
        if observations.keys() != self.metrics.keys():
            before = sorted(self.metrics)
            raise ValueError(f"spaces {sorted(observations)} after {before} in earlier batches")
        targets: dict[tuple[int, Preparation], Tensor] = {}  # prepared once for all spaces
        for space, streams in observations.items():
            clamped = {
                stream: _clamped(outputs, names, space)
                for stream, (outputs, _) in streams.items()
                if outputs.ndim == 4
            }
            prepared: dict[tuple[str, Preparation], Tensor] = {}
            for name, measure in self.measures.items():
                output, target = streams[measure.stream]
                how = measure.preparation
                if how is not None:
                    self.shapes[measure.stream] = (output.shape[-2], output.shape[-1])
                    mine, its = (measure.stream, how), (id(target), how)
                    if mine not in prepared:
                        prepared[mine] = how.outputs(clamped[measure.stream])
                    if its not in targets:
                        targets[its] = how.targets(target)
                    output, target = prepared[mine], targets[its]
                metric = self.metrics[space][name]
                counted = measure.enter(metric, output, target, names).tolist()
                missed = [name for name, counts in zip(names, counted, strict=True) if not counts]
                self.skipped[space][name] += missed

    def take(
        self,
        states: Mapping[str, Mapping[str, Mapping[str, Any]]],
        skipped: Mapping[str, Mapping[str, Sequence[str]]],
        shapes: Mapping[str, Size],
    ) -> None:
        """Merges another tally: its `states`, `skipped` and `shapes`."""
        if not self.metrics:
            self._begin(states)
        for space, of_space in states.items():
            for name, state in of_space.items():
                self.metrics[space][name].merge_state(state)
                self.skipped[space][name] += skipped[space][name]
        self.shapes |= shapes

    def states(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Returns the state of every metric, space -> name -> state."""
        return {
            space: {name: metric.state() for name, metric in metrics.items()}
            for space, metrics in self.metrics.items()
        }

    def rows(
        self,
        *,
        method: str,
        num_images: int,
        source: Size | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> dict[str, Row]:
        """Computes the row of each space.

        A metric that has no value, because it could judge no image or needs more of them, is NaN,
        with the reason in the row.

        `source` is the size of the smallest file; None is that of what was observed. `extra` goes
        into every row.
        """
        rows = {}
        for space, metrics in self.metrics.items():
            values, without = self._values(space)
            skipped = {name: names for name, names in self.skipped[space].items() if names}
            found: dict[str, Any] = {
                "num_counted": {name: metric.num_counted for name, metric in metrics.items()}
            }
            if skipped:
                found["reasons"] = {name: self.measures[name].reason for name in skipped}
            if without:
                found["without_value"] = without
            rows[space] = Row(
                method=method,
                space=space,
                metrics=values,
                protocol={name: self._protocol(name, metrics[name], source) for name in metrics},
                num_images=num_images,
                skipped=skipped,
                versions=software_versions(),
                extra={**found, **(extra or {})},
            )
        return rows

    def _begin(self, spaces: Mapping[str, Any]) -> None:
        for space in spaces:
            self.metrics[space] = {name: each.make() for name, each in self.measures.items()}
            self.skipped[space] = {name: [] for name in self.measures}

    def _values(self, space: str) -> tuple[dict[str, float], dict[str, str]]:
        """Computes the metrics of a space, and says why some have no value."""
        values, without = {}, {}
        for name, metric in self.metrics[space].items():
            try:
                # NaN where no image could be judged, which the row then says image by image.
                judged = metric.num_counted or not self.skipped[space][name]
                values[name] = metric.compute() if judged else math.nan
            except ValueError as error:
                values[name], without[name] = math.nan, " ".join(str(error).split())
            if name not in without and not metric.num_counted:
                without[name] = f"no image counts: {self.measures[name].reason}"
        return values, without

    def _protocol(self, name: str, metric: Metric, source: Size | None) -> dict[str, str]:
        measure = self.measures[name]
        low, high = metric.range
        words = {
            **metric.protocol,
            "direction": metric.direction,
            "range": f"[{low:g}, {high:g}]",
        }
        if measure.preparation is not None:
            shape = self.shapes[measure.stream]
            words |= measure.preparation.words(shape, source=source or shape)
        return {**words, **measure.words}


def _clamped(pictures: Tensor, names: Sequence[str], space: str) -> Tensor:
    """Clamps pictures to [-1, 1]. Raises ValueError that names those that are not finite."""
    if not pictures.isfinite().all():
        finite = pictures.isfinite().flatten(1).all(dim=1).tolist()
        bad = [name for name, sound in zip(names, finite, strict=True) if not sound]
        listed = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if bad[5:] else "")
        raise ValueError(f"pictures of {space} are to be [-1, 1] without NaN, not so: {listed}")
    return pictures.clamp(-1, 1)
