"""Protocols of papers: which metrics, of pictures of which size, by which networks.

`configs/protocol/NAME.yaml` holds one. `null` is what the paper does not say; `where_unknown` is
what is done then, and rows name these fields, so that nobody takes them for the paper's.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from clcae.evaluation.catalogue import CATALOGUE, OF_CODES, WINDOWS, WITHOUT_EDIT, Given
from clcae.evaluation.labels import Label
from clcae.evaluation.networks import NETWORKS, JudgingNetwork, MissingNetworkError
from clcae.evaluation.preparation import Preparation
from clcae.evaluation.tally import (
    AGAIN,
    RECONSTRUCTION,
    Measure,
    beside_drift_of,
    codes_of,
    response_of,
    unedited_of,
)
from clcae.evaluation.true_edits import AREAS, Asked
from clcae.evaluation.true_edits import PICTURES as OF_TRUE_EDITS

PICTURES = ("input", "generator")
_PREPARATION = ("size", "resize", "levels", "files", "quality", "compressed")
_KEYS = {*_PREPARATION, "measure", "network", "window", "edit", "words", "where_unknown"}
_KEYS |= {"picture", "area"}  # of true edits
_FALLBACK = {*_PREPARATION, "network", "window"}


@dataclass(frozen=True)
class MeasureSpec:
    """A column of a protocol, before its network is loaded."""

    name: str
    measure: str
    network: str | None
    window: str | None
    edit: str | None
    preparation: Preparation | None
    words: Mapping[str, str]
    unknown: tuple[str, ...]  # fields that the paper does not say
    asked: Asked | None = None  # of true edits


@dataclass(frozen=True)
class EditSpec:
    """An edit that is measured.

    Args:
        direction: name of a direction.
        strength: in units of the direction.
        attribute: what it changes, as a network judges it or an annotation calls it; read where a
            measure asks who has it.
        threshold: who is above it has the attribute, where a network judges it.
        amount: of a true edit, in place of a strength: by how much the label of `attribute` moves.
        reach: of a true edit: how many times the direction's range its strengths are tried.

    Raises:
        ValueError: if it has both a strength and an amount, or neither, or an amount of 0, or a
            reach of 0 or less, or one beside a strength.
    """

    direction: str
    strength: float | None = None
    attribute: str = ""
    threshold: float = 0.0
    amount: float | None = None
    reach: float = 1.0

    def __post_init__(self) -> None:
        if (self.strength is None) == (self.amount is None) or self.amount == 0:
            raise ValueError(
                f"strength is {self.strength} and amount {self.amount}: expected a strength, or "
                "the amount of a true edit"
            )
        if self.reach <= 0 or (self.reach != 1 and self.amount is None):
            raise ValueError(f"reach is {self.reach}: expected above 0, of a true edit")


@dataclass(frozen=True)
class Protocol:
    """How methods are measured.

    Args:
        title: its source in words.
        pictures: "input" compares pictures as large as the method reads them, "generator" as large
            as it makes them.
        measures: the columns, in order.
        edits: by name.
        directions: files or shipped names of the directions of the edits; empty where there is no
            edit, or the user is to say.
        labels: file that says who has the attributes of the edits; None where a network judges.
        timed_batch: pictures at once where time is taken; None takes none.
    """

    title: str
    pictures: str
    measures: tuple[MeasureSpec, ...]
    edits: Mapping[str, EditSpec] = field(default_factory=dict)
    directions: tuple[str, ...] = ()
    labels: str | None = None
    timed_batch: int | None = None


def read_protocol(values: Mapping[str, Any]) -> Protocol:
    """Checks and converts the values of a protocol's file; measures and edits of null are left out.

    Raises:
        ValueError: if a key or value is unknown, in one line that names it.
    """
    known = {"title", "pictures", "where_unknown", "measures", "edits", "directions", "labels"}
    known.add("time")
    _check_keys("protocol", values, known)
    pictures = values.get("pictures") or "input"
    if pictures not in PICTURES:
        raise ValueError(f"protocol.pictures is {pictures!r}: expected {' or '.join(PICTURES)}")
    given = values.get("edits") or {}
    if not isinstance(given, Mapping):
        raise ValueError(f"protocol.edits is {given!r}: expected edits by name")
    named = {name: entry for name, entry in given.items() if entry is not None}
    edits = {name: _edit(f"protocol.edits.{name}", entry) for name, entry in named.items()}
    fallback = values.get("where_unknown") or {}
    given = values.get("measures") or {}
    read = [_spec(name, entry, fallback) for name, entry in given.items() if entry is not None]
    measures = [each for spec in read for each in _with_each_edit(spec, edits)]
    if not measures:
        lacking = "protocol.edits has no true edit, which has an amount"
        raise ValueError(lacking if read else "protocol.measures names nothing to measure")
    if len(names := [spec.name for spec in measures]) > len({*names}):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"protocol.measures: two are called {twice!r}, one of them of each edit")
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


def _edit(where: str, entry: Any) -> EditSpec:
    """Reads an edit. Raises ValueError if a key is unknown or missing, or a value of no use."""
    _check_keys(where, entry, {f.name for f in fields(EditSpec)})
    if entry.get("direction") is None:
        raise ValueError(f"{where} has no direction")
    for key, value in entry.items():
        text = key in ("direction", "attribute")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        good = isinstance(value, str) if text else number and math.isfinite(value)
        if not good and (value is not None or key == "threshold"):
            expected = "a text" if text else "a finite number"
            raise ValueError(f"{where}.{key} is {value!r}: expected {expected}")
    try:
        return EditSpec(**{key: value for key, value in entry.items() if value is not None})
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _with_each_edit(spec: MeasureSpec, edits: Mapping[str, EditSpec]) -> list[MeasureSpec]:
    """Lists a measure; one of true edits as the mean over all, NAME, and of each, NAME EDIT."""
    if spec.asked is None:
        return [spec]
    true = [name for name, edit in edits.items() if edit.amount is not None]
    each = [
        replace(spec, name=f"{spec.name} {name}", edit=name, asked=replace(spec.asked, edit=name))
        for name in true
    ]
    return [spec, *each] if each else []


def build_measures(
    protocol: Protocol,
    network: Callable[[str], JudgingNetwork],
    *,
    labels: Mapping[str, Label] | None = None,
    without: Mapping[str, str] | None = None,
) -> tuple[dict[str, Measure], dict[str, str]]:
    """Builds the measures of a protocol; collects those that lack a network or an edit.

    Args:
        protocol: the protocol.
        network: gives a network by its name, or raises MissingNetworkError.
        labels: of every edit that can be made, who has the attribute.
        without: of every edit that cannot, why.

    Returns:
        The measures by name, and why the others cannot be taken.
    """
    built, missing = {}, dict[str, str]()
    for spec in protocol.measures:
        if spec.edit is not None and spec.edit in (without or {}):
            missing[spec.name] = (without or {})[spec.edit]
            continue
        if spec.asked and spec.edit is None and without:
            missing[spec.name] = next(iter(without.values()))  # it would be of fewer edits
            continue
        try:
            found = None if spec.network is None else network(spec.network)
        except MissingNetworkError as error:
            missing[spec.name] = str(error)
            continue
        label = (labels or {}).get(spec.edit or "")
        if CATALOGUE[spec.measure].asks == "attributes" and label and label.amount is None:
            missing[spec.name] = f"{label.words}: annotations do not say how much there is of it"
            continue
        built[spec.name] = _measure(spec, found, label, protocol)
    return built, missing


def _measure(
    spec: MeasureSpec, network: JudgingNetwork | None, label: Label | None, protocol: Protocol
) -> Measure:
    kind, edit, name = CATALOGUE[spec.measure], spec.edit or "", ""
    words = dict(spec.words)
    if spec.unknown:
        words["not known of the paper"] = ", ".join(spec.unknown)
    if network is not None and network.details:
        words["network, in detail"] = network.details
    files = ", ".join(Path(one).name for one in protocol.directions)
    if spec.asked is not None:
        words = {**_true_edit_words(spec.asked, protocol), "directions": files, **words}
    elif edit:
        asked = protocol.edits[edit]
        units = f"{asked.strength:+g} units of {asked.direction}, directions {files}"
        words = {"edit": edit, "strength": units, **words}
    answer = None
    if network is not None and kind.asks is not None:
        answer, name = network.answers[kind.asks], NETWORKS[str(spec.network)].words[kind.asks]
    make = partial(
        kind.make,
        Given(answer=answer, name=name, window=str(spec.window), edit=edit, label=label),
    )
    streams = {
        "reconstruction": RECONSTRUCTION,
        "edited": edit,
        "change": unedited_of(edit),
        "codes": codes_of(edit),
        "again": AGAIN,
        "codes and again": beside_drift_of(edit),
        "response": response_of(edit),
        "true": spec.asked.stream if spec.asked else "",
    }
    by_name = label.of if label is not None and isinstance(label.of, Mapping) else None
    return Measure(
        make,
        spec.preparation,
        streams[kind.pairs],
        words,
        kind.reason,
        by_name if kind.labelled else None,
    )


def _true_edit_words(asked: Asked, protocol: Protocol) -> dict[str, str]:
    """Describes what a metric of true edits compares."""
    amounts = {
        name: f"{edit.attribute} {edit.amount:+g}"
        + (f" ({edit.reach:g} times the range)" if edit.reach != 1 else "")
        for name, edit in protocol.edits.items()
        if edit.amount is not None and asked.edit in ("", name)
    }
    words = {"edit": ", ".join(amounts.values())}
    if asked.quantity != "reached":
        words["picture"] = OF_TRUE_EDITS[asked.picture]
    return words | ({"area": AREAS[asked.area]} if asked.area else {})


def _asked(where: str, measure: str, entry: Mapping[str, Any]) -> Asked:
    """Reads what a metric of true edits asks. Raises ValueError."""
    quantity = measure.removeprefix("true_")
    picture, area = str(entry.get("picture", "edited")), str(entry.get("area", ""))
    if picture not in OF_TRUE_EDITS:
        expected = ", ".join(OF_TRUE_EDITS)
        raise ValueError(f"{where}.picture is {picture!r}: expected one of {expected}")
    if quantity in ("psnr", "perceptual") and area not in AREAS:
        raise ValueError(f"{where}.area is {area!r}: expected one of {', '.join(AREAS)}")
    if quantity not in ("psnr", "perceptual") and area:
        raise ValueError(f"{where}.area is {area!r}: {measure} takes none")
    if quantity == "reached" and picture != "edited":
        raise ValueError(f"{where}.picture is {picture!r}: {measure} takes none")
    return Asked(quantity, picture, area)


def _spec(name: str, entry: Mapping[str, Any], fallback: Mapping[str, Any]) -> MeasureSpec:
    where = f"protocol.measures.{name}"
    _check_keys(where, entry, _KEYS)
    fallback = {**fallback, **(entry.get("where_unknown") or {})}
    _check_keys(f"{where}.where_unknown", fallback, _FALLBACK)
    measure = str(entry.get("measure"))
    if measure not in CATALOGUE:
        raise ValueError(f"{where}.measure is {measure!r}: expected {', '.join(CATALOGUE)}")
    kind = CATALOGUE[measure]
    # A key that is there with null is unknown; one that is not there does not apply.
    unknown = [key for key, value in entry.items() if value is None and key in fallback]
    values = {**entry, **{key: fallback[key] for key in unknown}}
    network, window, edit = (values.get(key) for key in ("network", "window", "edit"))
    able = [name for name, loaded in NETWORKS.items() if kind.asks in loaded.words]
    if kind.asks is not None and network not in able:
        raise ValueError(f"{where}.network is {network!r}: expected one of {', '.join(able)}")
    if (window is not None or kind.windowed) and window not in WINDOWS:
        raise ValueError(f"{where}.window is {window!r}: expected one of {', '.join(WINDOWS)}")
    if (edit is None) == (kind.pairs not in WITHOUT_EDIT):
        raise ValueError(
            f"{where}.edit is {edit!r}: {measure} takes {'one' if edit is None else 'none'}"
        )
    given = {key: values[key] for key in _PREPARATION if values.get(key) is not None}
    size = given.get("size")
    if isinstance(size, list | tuple):
        given["size"] = tuple(int(side) for side in size)
    without = kind.pairs in OF_CODES or kind.pairs == "true"
    foreign = [*given] if without else []
    foreign += [key for key in ("picture", "area") if key in entry and kind.pairs != "true"]
    if foreign:
        raise ValueError(f"{where}.{foreign[0]} is {entry[foreign[0]]!r}: {measure} takes none")
    try:
        preparation = None if without else Preparation(**given)
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
        asked=_asked(where, measure, entry) if kind.pairs == "true" else None,
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
