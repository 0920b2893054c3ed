"""Attributes of photographs by annotation, as CelebA's and CelebA-HQ's files give them.

    30000                                      {"0.jpg": {"Smiling": 1, "Young": -1}, ...}
    5_o_Clock_Shadow Arched_Eyebrows ...
    0.jpg -1 1 ...

The first form is that of list_attr_celeba.txt and CelebAMask-HQ-attribute-anno.txt (with commas and
without the count: Kaggle's copy), the second is JSON. Pictures are found by the names of their
files, endings and folders aside.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

_NOT = "not "  # before the name of an attribute: who lacks it
_VALUES: Mapping[object, float] = {1: 1.0, 0: 0.0, -1: 0.0, "1": 1.0, "0": 0.0, "-1": 0.0}


def read_labels(path: str | Path, *, attribute: str, names: Iterable[str]) -> dict[str, float]:
    """Who of some pictures has an attribute.

    Args:
        path: The file of annotations.
        attribute: Name of one of its attributes; with "not " before it, who lacks it.
        names: Of the pictures, as an image source gives them.

    Returns:
        Name -> 1 for those who have it, 0 for the others; those the file does not know are left
        out.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such file, has no such attribute, or knows none of the pictures; in one
            line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; expected attributes, such as CelebAMask-HQ-attribute-anno.txt"
        )
    name = attribute.removeprefix(_NOT)
    try:
        known = dict(_entries(path, name))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
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


def _entries(path: Path, attribute: str) -> Iterator[tuple[str, float]]:
    """Stem of a picture and whether it has the attribute."""
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("{"):
        for picture, values in json.loads(text).items():
            if not isinstance(values, Mapping) or attribute not in values:
                known = list(values) if isinstance(values, Mapping) else []
                raise ValueError(f"{path}: {picture} has no {attribute!r}: it has {_listed(known)}")
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
            raise ValueError(f"{path}: {line[0]} has {len(line) - 1} values, expected {width}")
        yield _stem(line[0]), _value(path, line[0], line[column])


def _value(path: Path, picture: object, value: object) -> float:
    if isinstance(value, float | list | dict) or value not in _VALUES:
        raise ValueError(f"{path}: {picture} has the value {value!r}: expected 1, 0 or -1")
    return _VALUES[value]


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if names[4:] else "") if names else "none"
