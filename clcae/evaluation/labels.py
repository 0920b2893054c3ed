"""Who has an attribute: by an annotation such as CelebA's, or by the portraits' regressor.

    30000                                      {"0.jpg": {"Smiling": 1, "Young": -1}, ...}
    5_o_Clock_Shadow Arched_Eyebrows ...
    0.jpg -1 1 ...

The first form is that of list_attr_celeba.txt and CelebAMask-HQ-attribute-anno.txt (with commas and
without the count: Kaggle's copy), the second is JSON. Pictures are found by the names of their
files, endings and folders aside.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from torch import Tensor

from clcae.evaluation.networks import JudgingNetwork
from clcae.portraits import ATTRIBUTES
from clcae.quoting import listing, one_line, parse_json, shown

_NOT = "not "  # before the name of an attribute: who lacks it
_VALUES: Mapping[object, float] = {1: 1.0, 0: 0.0, -1: 0.0, "1": 1.0, "0": 0.0, "-1": 0.0}


@dataclass(frozen=True)
class Label:
    """Says which pictures have what an edit gives: 1 has it, 0 lacks it, NaN is unknown."""

    of: Callable[[Tensor], Tensor] | Mapping[str, float]  # images to [N], or by name of the image
    words: str  # the attribute and what says who has it
    amount: Callable[[Tensor], Tensor] | None = None  # images to [N], counted the way of the edit
    unit: str = ""  # of the amount


def label_of(
    *,
    attribute: str,
    strength: float,
    threshold: float,
    annotations: str | None,
    names: Sequence[str],
    network: Callable[[str], JudgingNetwork],
) -> Label:
    """Labels pictures by what an edit of this strength gives them.

    Args:
        attribute: what the edit changes; an annotation has "not " before it for its absence.
        strength: of the edit; below 0 the label says who lacks the attribute.
        threshold: who is above it has the attribute, where the portraits' regressor judges.
        annotations: file that says who has it; None asks the regressor.
        names: of the pictures.
        network: gives a network by its name, or raises MissingNetworkError.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if nothing says who has the attribute, or as `read_labels`.
    """
    if annotations is not None:
        return _annotated(annotations, attribute, strength, names)
    if attribute not in ATTRIBUTES:
        raise ValueError(
            f"nothing says who has {attribute!r}: protocol.labels=FILE names annotations such "
            f"as CelebAMask-HQ-attribute-anno.txt (portraits have {', '.join(ATTRIBUTES)})"
        )
    judge = network("portraits").answers["attributes"].function
    return _judged(judge, attribute, strength, threshold)


def read_labels(path: str | Path, *, attribute: str, names: Iterable[str]) -> dict[str, float]:
    """Reads which of some pictures have an attribute, or lack it where "not " stands before it.

    Those who have it are 1, the others 0; those the file does not know are left out.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no file of annotations, has no such attribute, or knows none of the
            pictures; in one line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; expected attributes, such as CelebAMask-HQ-attribute-anno.txt"
        )
    name = attribute.removeprefix(_NOT)
    try:
        known = dict(_entries(path, name))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: no file of attributes: {error}") from error
    asked = list(names)
    found = {each: known[stem] for each in asked if (stem := _stem(each)) in known}
    if not found:
        raise ValueError(
            f"{path} knows none of {len(asked)} pictures: it has {_listed(list(known))}, they are "
            f"{_listed([_stem(each) for each in asked])}"
        )
    if name != attribute:
        return {each: 1.0 - value for each, value in found.items()}
    return found


def _annotated(path: str | Path, attribute: str, strength: float, names: Sequence[str]) -> Label:
    known, having = read_labels(path, attribute=attribute, names=names), "with"
    if strength < 0:
        known, having = {name: 1.0 - value for name, value in known.items()}, "without"
    return Label(known, f"{having} {attribute} in {Path(path).name}")


def _judged(
    judge: Callable[[Tensor], Tensor], attribute: str, strength: float, threshold: float
) -> Label:
    column, gives = ATTRIBUTES.index(attribute), strength > 0

    def having(images: Tensor) -> Tensor:
        above = judge(images)[:, column] > threshold
        return (above if gives else ~above).float()

    def amount(images: Tensor) -> Tensor:
        return judge(images)[:, column] * (1 if gives else -1)

    sign = "above" if gives else "not above"
    return Label(
        having,
        f"{attribute} {sign} {threshold:g} for the portraits' regressor",
        amount=amount,
        unit=f"{attribute}, in the units of the portraits' regressor",
    )


def _entries(path: Path, attribute: str) -> Iterator[tuple[str, float]]:
    """Yields the stem of each picture and whether it has the attribute."""
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("{"):
        try:
            pictures = parse_json(text)
        except ValueError as error:
            raise ValueError(f"{path}: no file of attributes: {one_line(error, 200)}") from error
        for picture, values in pictures.items():
            if not isinstance(values, Mapping) or attribute not in values:
                known = list(values) if isinstance(values, Mapping) else []
                raise ValueError(
                    f"{path}: {one_line(picture, 80)} has no {attribute!r}: it has {_listed(known)}"
                )
            yield _stem(str(picture)), _value(path, picture, values[attribute])
        return
    lines = [line.replace(",", " ").split() for line in text.splitlines() if line.strip()]
    if lines and len(lines[0]) == 1:  # how many there are
        lines.pop(0)
    if len(lines) < 2:
        raise ValueError(f"{path}: no file of attributes: it has {len(lines)} lines")
    width = len(lines[1]) - 1
    head = lines[0][-width:] if width > 0 else []  # Kaggle's has a name for the first column
    if attribute not in head:
        raise ValueError(f"{path} has no attribute {attribute!r}: it has {_listed(head)}")
    column = head.index(attribute) + 1
    for line in lines[1:]:
        if len(line) != width + 1:
            raise ValueError(
                f"{path}: {one_line(line[0], 80)} has {len(line) - 1} values, expected {width}"
            )
        yield _stem(line[0]), _value(path, line[0], line[column])


def _value(path: Path, picture: object, value: object) -> float:
    if isinstance(value, float | list | dict) or value not in _VALUES:
        raise ValueError(
            f"{path}: {one_line(picture, 80)} has the value {shown(value)}: expected 1, 0 or -1"
        )
    return _VALUES[value]


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _listed(names: Sequence[str]) -> str:
    return listing(names, 4) or "none"
