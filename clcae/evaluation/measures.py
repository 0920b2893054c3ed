"""The metrics of a protocol with their networks: what each reads, and how it is made."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from clcae.evaluation.networks import NETWORKS, JudgingNetwork, MissingNetworkError
from clcae.evaluation.protocol import (
    OF_CHANGES,
    PIXELS,
    QUESTIONS,
    SETS,
    WINDOWS,
    MeasureSpec,
    Protocol,
)
from clcae.evaluation.tally import RECONSTRUCTION, Measure
from clcae.metrics.consistency import EditingConsistency
from clcae.metrics.editing import AttributeChange
from clcae.metrics.frechet import EditingFrechetDistance
from clcae.metrics.identity import IdentitySimilarity
from clcae.metrics.metric import Metric
from clcae.metrics.reconstruction import PerceptualDistance
from clcae.metrics.ssim import StructuralSimilarity

_NO_FACE = "no face was found in the picture or in what it is compared with"
_NO_LABEL = "whether it has the attribute is unknown"


@dataclass(frozen=True)
class Label:
    """Who has an attribute.

    Args:
        of: Images [N, 3, H, W] to [N], 1 for those who have what the edit gives, 0 for the others,
            NaN where that is unknown; or the same number by the names of the images.
        words: The attribute and what says who has it.
        amount: Images to [N], how much of it they have, counted the way of the edit; None where
            nothing can say.
        unit: Of the amount, in words.
    """

    of: Callable[[Tensor], Tensor] | Mapping[str, float]
    words: str
    amount: Callable[[Tensor], Tensor] | None = None
    unit: str = ""


def build_measures(
    protocol: Protocol,
    network: Callable[[str], JudgingNetwork],
    *,
    labels: Mapping[str, Label] | None = None,
    without: Mapping[str, str] | None = None,
) -> tuple[dict[str, Measure], dict[str, str]]:
    """The measures of a protocol, those without their network apart.

    Args:
        protocol: The protocol.
        network: Gives a network by its name, or raises MissingNetworkError.
        labels: Of every edit that can be made, who has the attribute.
        without: Of every edit that cannot, why.

    Returns:
        The measures by name, and why the others cannot be taken.
    """
    built, missing = {}, dict[str, str]()
    for spec in protocol.measures:
        if spec.edit is not None and spec.edit in (without or {}):
            missing[spec.name] = (without or {})[spec.edit]
            continue
        try:
            found = None if spec.network is None else network(spec.network)
        except MissingNetworkError as error:
            missing[spec.name] = str(error)
            continue
        label = (labels or {}).get(spec.edit or "")
        built[spec.name] = _measure(spec, found, label, protocol)
    return built, missing


def _measure(
    spec: MeasureSpec, network: JudgingNetwork | None, label: Label | None, protocol: Protocol
) -> Measure:
    words = dict(spec.words)
    if spec.unknown:
        words["not known of the paper"] = ", ".join(spec.unknown)
    if network is not None and network.details:
        words["network, in detail"] = network.details
    stream, reason = RECONSTRUCTION, "the metric cannot judge it"
    if spec.edit is not None:
        edit = protocol.edits[spec.edit]
        stream = spec.edit if spec.preparation else codes_of(spec.edit)
        if spec.measure in OF_CHANGES:
            stream = unedited_of(spec.edit)
        files = ", ".join(Path(one).name for one in protocol.directions)
        units = f"{edit.strength:+g} units of {edit.direction}, directions {files}"
        words = {"edit": spec.edit, "strength": units, **words}
        reason = _NO_LABEL
    if spec.measure in ("identity", "edit_identity"):
        reason = _NO_FACE
    make = _factory(spec, network, label)
    by_name = label.of if label is not None and isinstance(label.of, Mapping) else None
    return Measure(make, spec.preparation, stream, words, reason, by_name)


def codes_of(edit: str) -> str:
    """The stream of codes before an edit and after it was undone."""
    return f"codes of {edit}"


def unedited_of(edit: str) -> str:
    """The stream of edited pictures against the same method's unedited reconstructions."""
    return f"unedited, {edit}"


def _factory(
    spec: MeasureSpec, network: JudgingNetwork | None, label: Label | None
) -> Callable[[], Metric]:
    if spec.measure in PIXELS:
        return PIXELS[spec.measure]
    if spec.measure == "ssim":
        window = WINDOWS[str(spec.window)]
        return lambda: StructuralSimilarity(window=window)
    if spec.measure == "consistency":
        edit = str(spec.edit)
        return lambda: EditingConsistency(edit=edit)
    assert network is not None and spec.network is not None
    question = QUESTIONS[spec.measure]
    name = NETWORKS[spec.network].words[str(question)]
    if spec.measure == "perceptual":
        distance = network.distance
        assert distance is not None
        return lambda: PerceptualDistance(distance=distance, distance_name=name)
    if spec.measure in ("identity", "edit_identity"):
        embed = network.embed
        assert embed is not None
        return lambda: IdentitySimilarity(embedder=embed, embedder_name=name)
    if spec.measure == "edit_change":
        assert label is not None and label.amount is not None
        amount, unit = label.amount, label.unit
        return lambda: AttributeChange(attribute=amount, attribute_name=unit)
    pooled, dimension = network.pooled, network.dimension
    assert pooled is not None
    if spec.measure == "editing_frechet":
        assert label is not None
        return lambda: EditingFrechetDistance(
            features=pooled,
            features_name=name,
            dimension=dimension,
            labels=None if isinstance(label.of, Mapping) else label.of,
            attribute=label.words,
        )
    kind = SETS[spec.measure]
    return lambda: kind(features=pooled, features_name=name, dimension=dimension)
