"""Catalogue of the metrics that a protocol can name: how each is made, and what it reads.

A new metric needs its file in `clcae.metrics` and one entry in `CATALOGUE`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from clcae.evaluation.labels import Label
from clcae.evaluation.networks import Answer
from clcae.metrics.editing import (
    AttributeChange,
    DriftFreeConsistency,
    EditingConsistency,
    EditingResponse,
)
from clcae.metrics.frechet import EditingFrechetDistance, FrechetDistance
from clcae.metrics.identity import IdentitySimilarity
from clcae.metrics.kernel import KernelDistance, SubsetKernelDistance
from clcae.metrics.manifold import Precision, Recall
from clcae.metrics.metric import Metric
from clcae.metrics.reconstruction import (
    MeanSquaredError,
    PeakSignalToNoiseRatio,
    PerceptualDistance,
)
from clcae.metrics.ssim import (
    GAUSSIAN_7,
    GAUSSIAN_11,
    UNIFORM_21,
    MultiscaleSimilarity,
    PortedMultiscaleSimilarity,
    StructuralSimilarity,
)
from clcae.metrics.true_edit import TrueEditMean

WINDOWS = {"gaussian 7": GAUSSIAN_7, "gaussian 11": GAUSSIAN_11, "uniform 21": UNIFORM_21}
NO_FACE = "no face was found in the picture or in what it is compared with"
NO_LABEL = "whether it has the attribute is unknown"

# Which pair of an observation a metric reads: a reconstruction and its input; an edited picture and
# its input, or the unedited reconstruction; codes after an edit was undone and before it, or after
# a second inversion without an edit, or both; what an edit of generated codes changes in their
# inversion; values of true edits, over all edits and of each.
Pairs = Literal[
    "reconstruction", "edited", "change", "codes", "again", "codes and again", "response", "true"
]
WITHOUT_EDIT = ("reconstruction", "again", "true")
OF_CODES = ("codes", "again", "codes and again", "response")


@dataclass(frozen=True)
class Given:
    """What a protocol gives a metric."""

    answer: Answer | None  # what it asks of a network
    name: str  # of the network, in words
    window: str  # of SSIM
    edit: str  # that is measured
    label: Label | None  # who has the attribute of the edit


@dataclass(frozen=True)
class Kind:
    """A metric of the catalogue.

    Args:
        make: makes a fresh metric.
        asks: what it asks of a network: "distance", "embed", "pooled" or "attributes".
        pairs: which pictures or codes it compares.
        windowed: whether a protocol names its window.
        labelled: whether it reads labels of an annotation, as `LabelledMetric`.
        reason: why an item does not count, where it does not.
    """

    make: Callable[[Given], Metric]
    asks: str | None = None
    pairs: Pairs = "reconstruction"
    windowed: bool = False
    labelled: bool = False
    reason: str = "the metric cannot judge it"


def _of_features(kind: Callable[..., Metric]) -> Callable[[Given], Metric]:
    return lambda given: kind(**_features(given))


def _features(given: Given) -> dict[str, Any]:
    assert given.answer is not None
    return {
        "features": given.answer.function,
        "features_name": given.name,
        "dimension": given.answer.dimension,
    }


def _perceptual(given: Given) -> Metric:
    assert given.answer is not None
    return PerceptualDistance(distance=given.answer.function, distance_name=given.name)


def _identity(given: Given) -> Metric:
    assert given.answer is not None
    return IdentitySimilarity(embedder=given.answer.function, embedder_name=given.name)


def _editing_frechet(given: Given) -> Metric:
    assert given.label is not None
    of = given.label.of
    return EditingFrechetDistance(
        **_features(given),
        labels=None if isinstance(of, Mapping) else of,
        attribute=given.label.words,
    )


def _attribute_change(given: Given) -> Metric:
    assert given.label is not None and given.label.amount is not None
    return AttributeChange(attribute=given.label.amount, attribute_name=given.label.unit)


def _of_true_edits(quantity: str) -> Kind:
    """A quantity of true edits; what is asked for equal change are judged attributes."""
    reason = "its area is empty in every edit"
    return Kind(lambda _: TrueEditMean(quantity), asks="attributes", pairs="true", reason=reason)


CATALOGUE: Mapping[str, Kind] = {
    "mse": Kind(lambda _: MeanSquaredError()),
    "psnr": Kind(lambda _: PeakSignalToNoiseRatio()),
    "ssim": Kind(lambda given: StructuralSimilarity(window=WINDOWS[given.window]), windowed=True),
    "ms_ssim": Kind(lambda _: MultiscaleSimilarity()),
    "ms_ssim_ported": Kind(lambda _: PortedMultiscaleSimilarity()),
    "perceptual": Kind(_perceptual, asks="distance"),
    "identity": Kind(_identity, asks="embed", reason=NO_FACE),
    "frechet": Kind(_of_features(FrechetDistance), asks="pooled"),
    "kernel": Kind(_of_features(KernelDistance), asks="pooled"),
    "kernel_subsets": Kind(_of_features(SubsetKernelDistance), asks="pooled"),
    "precision": Kind(_of_features(Precision), asks="pooled"),
    "recall": Kind(_of_features(Recall), asks="pooled"),
    "editing_frechet": Kind(
        _editing_frechet, asks="pooled", pairs="edited", labelled=True, reason=NO_LABEL
    ),
    "edit_change": Kind(_attribute_change, asks="attributes", pairs="change"),
    "edit_identity": Kind(_identity, asks="embed", pairs="change", reason=NO_FACE),
    "consistency": Kind(lambda given: EditingConsistency(edit=given.edit), pairs="codes"),
    "drift": Kind(lambda _: EditingConsistency(edit="none"), pairs="again"),
    "drift_free_consistency": Kind(
        lambda given: DriftFreeConsistency(edit=given.edit), pairs="codes and again"
    ),
    "response": Kind(lambda given: EditingResponse(edit=given.edit), pairs="response"),
    "true_psnr": _of_true_edits("psnr"),
    "true_perceptual": _of_true_edits("perceptual"),
    "true_change": _of_true_edits("change"),
    "true_reached": _of_true_edits("reached"),
}
