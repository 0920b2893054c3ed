"""Protocols of papers as data: which metrics, of pictures of which size, by which networks.

`configs/protocol/NAME.yaml` holds one. `null` is what the paper does not say; `where_unknown` is
what is done then, and rows name these fields, so that nobody takes them for the paper's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clcae.evaluation.networks import NETWORKS
from clcae.evaluation.preparation import Preparation, Size
from clcae.metrics.frechet import FrechetDistance
from clcae.metrics.kernel import KernelDistance, SubsetKernelDistance
from clcae.metrics.manifold import Precision, Recall
from clcae.metrics.metric import Metric
from clcae.metrics.reconstruction import MeanSquaredError, PeakSignalToNoiseRatio
from clcae.metrics.ssim import (
    GAUSSIAN_7,
    GAUSSIAN_11,
    UNIFORM_21,
    MultiscaleSimilarity,
    PortedMultiscaleSimilarity,
)

PICTURES = ("input", "generator")
WINDOWS = {"gaussian 7": GAUSSIAN_7, "gaussian 11": GAUSSIAN_11, "uniform 21": UNIFORM_21}
PIXELS: Mapping[str, Callable[[], Metric]] = {
    "mse": MeanSquaredError,
    "psnr": PeakSignalToNoiseRatio,
    "ms_ssim": MultiscaleSimilarity,
    "ms_ssim_ported": PortedMultiscaleSimilarity,
}
SETS: Mapping[str, type[FrechetDistance | KernelDistance | Precision | Recall]] = {
    "frechet": FrechetDistance,
    "kernel": KernelDistance,
    "kernel_subsets": SubsetKernelDistance,
    "precision": Precision,
    "recall": Recall,
}
QUESTIONS: Mapping[str, str | None] = {  # what a measure asks of its network
    **dict.fromkeys([*PIXELS, "ssim", "consistency"], None),
    "perceptual": "distance",
    **dict.fromkeys(["identity", "edit_identity"], "embed"),
    **dict.fromkeys([*SETS, "editing_frechet"], "pooled"),
    "edit_change": "attributes",
}
OF_CHANGES = ("edit_change", "edit_identity")  # edited pictures against the same ones unedited
OF_EDITS = ("editing_frechet", *OF_CHANGES, "consistency")
_PREPARATION = ("size", "resize", "levels", "files", "quality", "compressed")
_KEYS = {*_PREPARATION, "measure", "network", "window", "edit", "words", "where_unknown"}


@dataclass(frozen=True)
class MeasureSpec:
    """A column of a protocol, before its network is there."""

    name: str
    measure: str
    network: str | None
    window: str | None
    edit: str | None
    preparation: Preparation | None
    words: Mapping[str, str]
    unknown: tuple[str, ...]  # fields that the paper does not say


@dataclass(frozen=True)
class EditSpec:
    """An edit that is measured.

    Args:
        direction: Name of a direction.
        strength: In its units.
        attribute: What it changes, as a network judges it or a file of labels has it.
        threshold: Who is above has the attribute, where a network judges it.
    """

    direction: str
    strength: float
    attribute: str
    threshold: float = 0.0


@dataclass(frozen=True)
class Protocol:
    """A protocol.

    Args:
        title: What it is.
        pictures: "input", as large as the method reads them, or "generator", as it makes them.
        measures: In order.
        edits: By name.
        directions: Where the directions of the edits come from, files or a shipped name; none where
            there is no edit, or the user is to say.
        labels: File that says who has the attributes of the edits; None where a network judges.
        timed_batch: Pictures at once where time is taken; None takes none.
    """

    title: str
    pictures: str
    measures: tuple[MeasureSpec, ...]
    edits: Mapping[str, EditSpec] = field(default_factory=dict)
    directions: tuple[str, ...] = ()
    labels: str | None = None
    timed_batch: int | None = None

    def smallest_size(self, own: Size) -> Size:
        """The largest size that any of its metrics brings pictures of `own` size to."""
        shapes = [spec.preparation.shape(own) for spec in self.measures if spec.preparation]
        return max((shape[0] for shape in shapes), default=1), max(
            (shape[1] for shape in shapes), default=1
        )


def read_protocol(values: Mapping[str, Any]) -> Protocol:
    """A protocol from what its file says.

    Raises:
        ValueError: A key or value is unknown, in one line that names it.
    """
    known = {"title", "pictures", "where_unknown", "measures", "edits", "directions", "labels"}
    known.add("time")
    _check_keys("protocol", values, known)
    pictures = values.get("pictures") or "input"
    if pictures not in PICTURES:
        raise ValueError(f"protocol.pictures is {pictures!r}: expected {' or '.join(PICTURES)}")
    edits = {}
    for name, entry in (values.get("edits") or {}).items():
        where = f"protocol.edits.{name}"
        _check_keys(where, entry, {"direction", "strength", "attribute", "threshold"})
        try:
            edits[name] = EditSpec(**entry)
        except TypeError as error:
            raise ValueError(f"{where}: {error}") from error
    fallback = values.get("where_unknown") or {}
    given = values.get("measures") or {}
    measures = [_spec(name, entry, fallback) for name, entry in given.items() if entry is not None]
    if not measures:
        raise ValueError("protocol.measures names nothing to measure")
    # An edit that was taken off the configuration takes its metrics with it.
    kept = [spec for spec in measures if spec.edit is None or spec.edit in edits]
    if left := [spec.edit for spec in measures if spec not in kept and edits]:
        raise ValueError(f"protocol.edits has no {left[0]!r}: it has {', '.join(edits)}")
    time = values.get("time")
    return Protocol(
        title=str(values.get("title") or ""),
        pictures=pictures,
        measures=tuple(kept),
        edits=edits,
        directions=_several(values.get("directions")),
        labels=values.get("labels"),
        timed_batch=None if time is None else int(time["batch"]),
    )


def check_sizes(protocol: Protocol, own: Size, source: Size) -> None:
    """Refuses a protocol that asks for more pixels than the files have.

    Args:
        protocol: The protocol.
        own: Height and width of the pictures as they are compared.
        source: Those of the smallest file.

    Raises:
        ValueError: With the metrics.
    """
    specs = [s for s in protocol.measures if s.preparation]
    large = [s for s in specs if s.preparation and s.preparation.too_large_for(own, source)]
    if large:
        assert large[0].preparation
        height, width = large[0].preparation.shape(own)
        raise ValueError(
            f"{', '.join(s.name for s in large)}: {height} x {width} is asked of pictures of "
            f"{source[0]} x {source[1]}, too small for this protocol; enlarge=true enlarges them, "
            "and rows say so"
        )


def _spec(name: str, entry: Mapping[str, Any], fallback: Mapping[str, Any]) -> MeasureSpec:
    where = f"protocol.measures.{name}"
    _check_keys(where, entry, _KEYS)
    fallback = {**fallback, **(entry.get("where_unknown") or {})}
    _check_keys(f"{where}.where_unknown", fallback, {*_PREPARATION, "network", "window"})
    measure = str(entry.get("measure"))
    if measure not in QUESTIONS:
        raise ValueError(f"{where}.measure is {measure!r}: expected {', '.join(QUESTIONS)}")
    # A key that is there with null is unknown; one that is not there does not apply.
    unknown = [key for key, value in entry.items() if value is None and key in fallback]
    values = {**entry, **{key: fallback[key] for key in unknown}}
    network, window, edit = (values.get(key) for key in ("network", "window", "edit"))
    question = QUESTIONS[measure]
    if question is not None and question not in NETWORKS_BY_QUESTION.get(str(network), ()):
        able = [key for key, kinds in NETWORKS_BY_QUESTION.items() if question in kinds]
        raise ValueError(f"{where}.network is {network!r}: expected one of {', '.join(able)}")
    if (window is not None or measure == "ssim") and window not in WINDOWS:
        raise ValueError(f"{where}.window is {window!r}: expected one of {', '.join(WINDOWS)}")
    if (edit is None) == (measure in OF_EDITS):
        raise ValueError(
            f"{where}.edit is {edit!r}: {measure} takes {'one' if edit is None else 'none'}"
        )
    given = {key: values[key] for key in _PREPARATION if values.get(key) is not None}
    size = given.get("size")
    if isinstance(size, list | tuple):
        given["size"] = tuple(int(side) for side in size)
    try:
        preparation = None if measure == "consistency" else Preparation(**given)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from error
    return MeasureSpec(
        name=name,
        measure=measure,
        network=network,
        window=window,
        edit=edit,
        preparation=preparation,
        words={key: str(text) for key, text in (entry.get("words") or {}).items()},
        unknown=tuple(unknown),
    )


def _several(given: str | Sequence[str] | None) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(map(str, given or ()))


def _check_keys(where: str, values: Any, known: set[str]) -> None:
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} is {values!r}: expected keys {', '.join(sorted(known))}")
    if unknown := sorted(map(str, values.keys() - known)):
        raise ValueError(
            f"{where} has no key {', '.join(unknown)}; there are {', '.join(sorted(known))}"
        )


NETWORKS_BY_QUESTION = {name: tuple(kind.words) for name, kind in NETWORKS.items()}
