"""Evaluation: every image of a source, through a method, under every metric.

Every image counts, also those of the last, smaller batch; an image that a metric cannot judge is
named in the row. (Official scripts drop both in silence.)
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from clcae.data.sources import ImageSource
from clcae.evaluation.preparation import Preparation, Size
from clcae.evaluation.rows import Row, software_versions
from clcae.metrics.metric import LabelledMetric, Metric

RECONSTRUCTION = "reconstruction"
Pair = tuple[Tensor, Tensor]  # what is judged [N, ...], what it is compared with [N, ...]
Observations = Mapping[str, Mapping[str, Pair]]  # space -> stream -> what metrics read
_AS_THEY_ARE = Preparation()


@dataclass(frozen=True)
class Measure:
    """One column of the result: a metric, what it reads, and what it reads it as.

    Args:
        make: Makes a fresh metric; its networks are shared.
        preparation: What is done to the pictures of both sides; None for codes.
        stream: Which pair of an observation it takes.
        words: What the row says of it besides; it replaces words of the metric.
        reason: Why an item does not count, where the metric says that it does not.
        labels: Name of an image -> 1 or 0, for a metric of labelled images; an image that is not
            among them does not count. None where the metric labels its images itself.
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
        """Has the metric take in a batch; which of its items count, [N] bool."""
        if self.labels is None:
            return metric.update(outputs, targets)
        assert isinstance(metric, LabelledMetric)
        labels = torch.tensor([self.labels.get(name, math.nan) for name in names])
        return metric.update_labelled(outputs, targets, labels)


class Tally:
    """The metrics of every space, and the images that they could not judge.

    Args:
        measures: By name; those of all spaces.
    """

    def __init__(self, measures: Mapping[str, Measure]) -> None:
        self.measures = dict(measures)
        self.metrics: dict[str, dict[str, Metric]] = {}  # space -> name -> metric
        self.skipped: dict[str, dict[str, list[str]]] = {}
        self.shapes: dict[str, Size] = {}  # stream -> height and width before any preparation

    @torch.no_grad()
    def update(self, observations: Observations, names: Sequence[str]) -> None:
        """Takes in a batch.

        Args:
            observations: For each space and stream a pair. Pictures are clamped to [-1, 1], as a
                file would.
            names: Of the N images.

        Raises:
            ValueError: If the spaces are others than before, a picture is not finite, or a metric
                refuses what it is given.
        """
        if not self.metrics:
            self.begin(observations)
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

    def begin(self, spaces: Mapping[str, Any] | Sequence[str]) -> None:
        """Makes fresh metrics for these spaces."""
        for space in spaces:
            self.metrics[space] = {name: each.make() for name, each in self.measures.items()}
            self.skipped[space] = {name: [] for name in self.measures}

    def take(
        self,
        states: Mapping[str, Mapping[str, Mapping[str, Any]]],
        skipped: Mapping[str, Mapping[str, Sequence[str]]],
        shapes: Mapping[str, Size],
    ) -> None:
        """Takes in what another tally has taken in: its `states`, `skipped` and `shapes`."""
        if not self.metrics:
            self.begin(states)
        for space, of_space in states.items():
            for name, state in of_space.items():
                self.metrics[space][name].merge_state(state)
                self.skipped[space][name] += skipped[space][name]
        self.shapes |= shapes

    def states(self) -> dict[str, dict[str, dict[str, Any]]]:
        """The state of every metric."""
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
        """A row for each space.

        Args:
            method: Its name.
            num_images: How many images were observed.
            source: Height and width of the smallest file; None is that of what was observed.
            extra: For every row.
        """
        return {
            space: self._row(space, method, num_images, source, extra or {})
            for space in self.metrics
        }

    def _row(
        self,
        space: str,
        method: str,
        num_images: int,
        source: Size | None,
        extra: Mapping[str, Any],
    ) -> Row:
        metrics, values, without = self.metrics[space], {}, {}
        for name, metric in metrics.items():
            try:
                # NaN where no image could be judged, which the row then says image by image.
                values[name] = metric.compute() if metric.num_counted else math.nan
            except ValueError as error:
                values[name], without[name] = math.nan, " ".join(str(error).split())
            if name not in without and not metric.num_counted:
                without[name] = f"no image counts: {self.measures[name].reason}"
        skipped = {name: names for name, names in self.skipped[space].items() if names}
        found: dict[str, Any] = {
            "num_counted": {name: metric.num_counted for name, metric in metrics.items()}
        }
        if skipped:
            found["reasons"] = {name: self.measures[name].reason for name in skipped}
        if without:
            found["without_value"] = without
        return Row(
            method=method,
            space=space,
            metrics=values,
            protocol={name: self._protocol(name, metrics[name], source) for name in metrics},
            num_images=num_images,
            skipped=skipped,
            versions=software_versions(),
            extra={**found, **extra},
        )

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


@torch.no_grad()
def evaluate(
    outputs: Callable[[Tensor], Mapping[str, Tensor]],
    source: ImageSource,
    *,
    method: str,
    metrics: Mapping[str, Callable[[], Metric] | Measure],
    batch_size: int,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Row]:
    """Judge what a method makes of every image of a source.

    Args:
        outputs: Images [N, 3, H, W] on `device` to reconstructions of the same shape, one for each
            space: {"W": ..., "W+": ..., "F": ...}. They are clamped to [-1, 1], as a file would.
        source: The images.
        method: Name of the method, for the rows.
        metrics: For each name a function that makes a fresh metric, or a measure of
            reconstructions.
        batch_size: Number of images at once; values do not depend on it.
        device: Where the method and the networks of the metrics are.
        progress: Called with the number of images done and of all images, after each batch.

    Returns:
        A row for each space, in the order of `outputs`. A metric that has no value, because it
        could judge no image or needs more of them, is NaN, with the reason in the row.

    Raises:
        ValueError: If the source is empty, the batch size is not positive, a batch has other
            spaces than the first, a picture is not finite, or a metric refuses its images.
    """
    num_images = len(source)
    if num_images == 0 or batch_size < 1:
        raise ValueError(f"{num_images} images in batches of {batch_size}: nothing to evaluate")
    tally = Tally({n: m if isinstance(m, Measure) else Measure(m) for n, m in metrics.items()})
    for start in range(0, num_images, batch_size):
        indices = range(start, min(start + batch_size, num_images))
        images = source.images(indices).to(device)
        observed = {
            space: {RECONSTRUCTION: (pictures, images)}
            for space, pictures in outputs(images).items()
        }
        tally.update(observed, [source.name(index) for index in indices])
        if progress is not None:
            progress(indices.stop, num_images)
    return tally.rows(method=method, num_images=num_images)


def _clamped(pictures: Tensor, names: Sequence[str], space: str) -> Tensor:
    """Pictures in [-1, 1]. Raises ValueError that names those that are not finite."""
    if not pictures.isfinite().all():
        finite = pictures.isfinite().flatten(1).all(dim=1).tolist()
        bad = [name for name, sound in zip(names, finite, strict=True) if not sound]
        listed = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if bad[5:] else "")
        raise ValueError(f"pictures of {space} are to be [-1, 1] without NaN, not so: {listed}")
    return pictures.clamp(-1, 1)
