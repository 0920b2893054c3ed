"""Checks values of a configuration against the annotations of the arguments that receive them."""

import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Union

from training.errors import OURS, UsageError

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
_WORDS |= {type(None): "null"}
_LISTS, _MAPPINGS = (Sequence, list, tuple), (Mapping, dict)


def hints_of(function: Callable[..., Any]) -> Mapping[str, Any]:
    """Returns the annotations of a function or class of ours; those of others may be loose."""
    if not str(getattr(function, "__module__", "")).startswith(OURS):
        return {}
    made = function.__init__ if inspect.isclass(function) else function
    try:
        return typing.get_type_hints(made)
    except (NameError, TypeError):  # of imports for type checkers alone
        return {}


def check_type(value: Any, hint: Any, *, where: str) -> None:
    """Checks what a configuration can hold: null, numbers, texts, lists and mappings of them.

    Objects that were built from it are checked by those who take them.

    Raises:
        UsageError: if the annotation allows no such value.
    """
    allowed = [*_alternatives(hint)]
    if any(_fits(value, one) for one in allowed):
        return
    origins = [typing.get_origin(one) or one for one in allowed]
    for one, origin in zip(allowed, origins, strict=True):  # the entry that is wrong says more
        of_entries = typing.get_args(one)
        if isinstance(value, dict) and origin in _MAPPINGS and of_entries:
            for key, entry in value.items():
                check_type(entry, of_entries[1], where=f"{where}.{key}")
        if isinstance(value, list) and origin is Sequence and of_entries:
            for index, entry in enumerate(value):
                check_type(entry, of_entries[0], where=f"{where}[{index}]")
    expected = " or ".join(dict.fromkeys(map(_in_words, allowed)))
    raise UsageError(f"{where} is {value!r}, expected {expected}")


def _alternatives(hint: Any) -> Iterator[Any]:
    if typing.get_origin(hint) in (Union, types.UnionType):
        for one in typing.get_args(hint):
            yield from _alternatives(one)
    else:
        yield type(None) if hint is None else hint


def _fits(value: Any, hint: Any) -> bool:
    """Returns whether a value has one type, as far as configurations tell; who knows, has it."""
    origin, given = typing.get_origin(hint) or hint, typing.get_args(hint)
    if isinstance(value, dict) and origin in _MAPPINGS:
        return len(given) != 2 or all(_fits_any(each, given[1]) for each in value.values())
    if isinstance(value, list) and origin in _LISTS:
        return origin is not Sequence or all(
            _fits_any(each, one) for one in given for each in value
        )
    if isinstance(value, dict | list):
        return origin is not Literal and origin not in (*_WORDS, *_LISTS, *_MAPPINGS)
    if value is not None and not isinstance(value, bool | int | float | str):
        return True
    if origin is Literal:
        return value in given
    if origin is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if origin is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is Any or not inspect.isclass(origin):
        return True
    if origin in _LISTS or origin in _MAPPINGS or getattr(origin, "_is_protocol", False):
        return False
    return isinstance(value, origin) or not origin.__module__.startswith(("builtins", *OURS))


def _fits_any(value: Any, hint: Any) -> bool:
    return any(_fits(value, one) for one in _alternatives(hint))


def _in_words(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(str, typing.get_args(hint)))
    origin = typing.get_origin(hint) or hint
    if origin in _LISTS or origin in _MAPPINGS:
        return "a list" if origin in _LISTS else "keys with values"
    return _WORDS.get(origin) or str(getattr(origin, "__name__", origin))
