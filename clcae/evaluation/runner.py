"""The evaluation loop: every image of a source, through a method, under every metric.

Every image counts, also those of the last, smaller batch; an image that a metric cannot judge is
named in the row. (Official scripts drop both in silence.)
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from clcae.data.sources import ImageSource
from clcae.evaluation.results import Row, software_versions
from clcae.metrics.metric import Metric


@torch.no_grad()
def evaluate(
    outputs: Callable[[Tensor], Mapping[str, Tensor]],
    source: ImageSource,
    *,
    method: str,
    metrics: Mapping[str, Callable[[], Metric]],
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
        metrics: For each name a function that makes a fresh metric.
        batch_size: Number of images at once; values do not depend on it.
        device: Where the method and the networks of the metrics are.
        progress: Called with the number of images done and of all images, after each batch.

    Returns:
        A row for each space, in the order of `outputs`.

    Raises:
        ValueError: If the source is empty, the batch size is not positive, a batch has other
            spaces than the first, or a metric refuses its images.
    """
    num_images = len(source)
    if num_images == 0 or batch_size < 1:
        raise ValueError(f"{num_images} images in batches of {batch_size}: nothing to evaluate")
    judges: dict[str, dict[str, Metric]] = {}
    skipped: dict[str, dict[str, list[str]]] = {}
    shape: tuple[int, ...] = ()
    for start in range(0, num_images, batch_size):
        indices = range(start, min(start + batch_size, num_images))
        images = source.images(indices).to(device)
        shape = tuple(images.shape[-2:])
        results = outputs(images)
        if not judges:
            judges = {space: {n: make() for n, make in metrics.items()} for space in results}
            skipped = {space: {name: [] for name in metrics} for space in results}
        if results.keys() != judges.keys():
            raise ValueError(f"spaces {sorted(results)} after {sorted(judges)} in earlier batches")
        for space, result in results.items():
            for name, metric in judges[space].items():
                counted = metric.update(result.clamp(-1, 1), images).tolist()
                missed = [i for i, counts in zip(indices, counted, strict=True) if not counts]
                skipped[space][name] += [source.name(i) for i in missed]
        if progress is not None:
            progress(indices.stop, num_images)
    return {
        space: Row(
            method=method,
            space=space,
            metrics={name: _value(metric) for name, metric in judges[space].items()},
            protocol={name: _protocol(metric, shape) for name, metric in judges[space].items()},
            num_images=num_images,
            skipped={name: names for name, names in skipped[space].items() if names},
            versions=software_versions(),
            extra={"num_counted": {n: m.num_counted for n, m in judges[space].items()}},
        )
        for space in judges
    }


def time_per_image(
    function: Callable[[Tensor], Any],
    images: Tensor,  # [N, 3, H, W]
    *,
    repeats: int = 10,
    warmup: int = 3,
) -> float:
    """Time a function of a batch of images; the device is waited for before each clock reading.

    Args:
        function: What is timed.
        images: Images [N, 3, H, W], on the device of the function.
        repeats: Number of timed calls.
        warmup: Number of calls before them, in which kernels are built and chosen.

    Returns:
        Milliseconds per image: the median over the calls, divided by N.

    Raises:
        ValueError: If there is no image, or no call.
    """
    if len(images) == 0 or repeats < 1:
        raise ValueError(f"{repeats} calls with {len(images)} images: nothing to time")
    for _ in range(warmup):
        function(images)
    seconds = []
    for _ in range(repeats):
        _synchronize(images.device)
        start = time.perf_counter()
        function(images)
        _synchronize(images.device)
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds) / len(images)


def _value(metric: Metric) -> float:
    """NaN where no image could be judged, which the row then says image by image."""
    return metric.compute() if metric.num_counted else math.nan


def _protocol(metric: Metric, shape: tuple[int, ...]) -> dict[str, str]:
    low, high = metric.range
    return {
        **metric.protocol,
        "direction": metric.direction,
        "range": f"[{low:g}, {high:g}]",
        "resolution": " x ".join(str(side) for side in shape),
        "outputs": "clamped to [-1, 1]",
    }


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
