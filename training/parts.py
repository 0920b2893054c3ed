"""Builds objects from configuration nodes; shared ones, the parts, are built once.

A node ``{_target_: package.Class, key: value}`` calls the class with its keys, each built first.
``{_part_: NAME}`` stands for the part that the root key NAME describes: whoever asks for it gets
the same object. ``_partial_: true`` passes a functools.partial instead of the result. Values are
checked against the annotations of the arguments that receive them.
"""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Union

import torch
from hydra.utils import get_object
from torch import nn

from training.errors import OURS, UsageError
from training.task import derive_seed

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
_WORDS |= {type(None): "null"}
_LISTS, _MAPPINGS = (Sequence, list, tuple), (Mapping, dict)


class Parts:
    """Builds and caches the parts of a run, on demand.

    Args:
        config: name -> node of every part.
        device: where modules are moved once they are built; building happens on the CPU.
        seed: of the initial weights; every part has a random stream of its own, so the order of
            building does not matter.
    """

    def __init__(
        self,
        *,
        config: Mapping[str, Mapping[str, Any]],
        device: torch.device,
        seed: int,
    ) -> None:
        self.config = dict(config)
        self.device = device
        self.seed = seed
        self._built: dict[str, Any] = {}
        self._building: list[str] = []

    def __getitem__(self, name: str) -> Any:
        """Returns the part of this name, building it at the first call.

        Raises:
            UsageError: if there is none, it cannot be built, or it needs itself.
        """
        if name in self._built:
            return self._built[name]
        if name not in self.config:
            known = ", ".join(self.config) or "none"
            raise UsageError(f"there is no part {name!r}; there are {known}")
        if name in self._building:
            cycle = " -> ".join([*self._building[self._building.index(name) :], name])
            raise UsageError(f"the parts need each other in a circle: {cycle}")
        self._building.append(name)
        try:
            part = self.build(self.config[name], where=name)
        finally:
            self._building.pop()
        self._built[name] = part
        return part

    def modules(self) -> list[nn.Module]:
        """Lists the networks among the parts built so far."""
        return [part for part in self._built.values() if isinstance(part, nn.Module)]

    def build(self, node: Any, *, where: str, **given: Any) -> Any:
        """Builds a node and, before it, the nodes inside it.

        Args:
            node: a node with ``_target_`` or ``_part_``, a plain mapping, a sequence, or a value.
            where: its dotted key, for messages and for the seed of its weights.
            given: further arguments of the outermost call; they override those of the node.

        Raises:
            UsageError: if the target does not exist or does not take these arguments.
        """
        if isinstance(node, Mapping):
            if "_part_" in node:
                return self[node["_part_"]]
            inner = {
                key: self.build(value, where=f"{where}.{key}")
                for key, value in node.items()
                if key not in ("_target_", "_partial_")
            }
            if "_target_" not in node:
                return inner
            partial = bool(node.get("_partial_", False))
            return self._call(node["_target_"], {**inner, **given}, where=where, partial=partial)
        if isinstance(node, Sequence) and not isinstance(node, str):
            return [self.build(value, where=f"{where}[{i}]") for i, value in enumerate(node)]
        return node

    def _call(self, target: str, arguments: dict[str, Any], *, where: str, partial: bool) -> Any:
        function = _find(target, where=where)
        _check_arguments(function, target, arguments, where=where, partial=partial)
        if partial:
            return functools.partial(function, **arguments)
        torch.manual_seed(self._seed_of(where))
        try:
            built = function(**arguments)
        except FileNotFoundError as error:
            if "." in where:  # not of a part, whose name the user has typed beside the file
                raise FileNotFoundError(f"{where}: {error}") from error
            raise
        if isinstance(built, nn.Module):
            built = built.to(self.device).eval()
        return built

    def _seed_of(self, where: str) -> int:
        """Derives the seed of a node's weights; "parts." keeps published results repeatable."""
        part = where.partition(".")[0] in self.config
        return derive_seed(self.seed, "weights", f"parts.{where}" if part else where)


def _find(target: str, *, where: str) -> Callable[..., Any]:
    try:
        function = get_object(target)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"{where}._target_ is {target!r}, which cannot be imported: {reason}"
        ) from error
    if not callable(function):
        raise UsageError(f"{where}._target_ is {target!r}, expected a class or a function")
    found: Callable[..., Any] = function
    return found


def _check_arguments(
    function: Callable[..., Any],
    target: str,
    arguments: Mapping[str, Any],
    *,
    where: str,
    partial: bool,
) -> None:
    try:
        signature = inspect.signature(function)
    except ValueError:  # some built-ins have none
        return
    try:
        (signature.bind_partial if partial else signature.bind)(**arguments)
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "nothing"
        raise UsageError(f"{where}: {target}: {error}; it takes {takes}") from error
    hints = hints_of(function)
    for key, value in arguments.items():
        check_type(value, hints.get(key, Any), where=f"{where}.{key}")


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
        named = origin is Literal or origin in (*_WORDS, *_LISTS, *_MAPPINGS)
        return not named and not _is_built(origin)  # a node without _target_ is built to nothing
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
    return isinstance(value, origin) or not (
        origin.__module__.startswith("builtins") or _is_built(origin)
    )


def _is_built(hint: Any) -> bool:
    """Returns whether a type is a class of ours, a network or a protocol: no plain value."""
    return inspect.isclass(hint) and (
        getattr(hint, "_is_protocol", False)
        or issubclass(hint, nn.Module)
        or hint.__module__.startswith(OURS)
    )


def _fits_any(value: Any, hint: Any) -> bool:
    return any(_fits(value, one) for one in _alternatives(hint))


def _in_words(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(str, typing.get_args(hint)))
    origin = typing.get_origin(hint) or hint
    if origin in _LISTS or origin in _MAPPINGS:
        return "a list" if origin in _LISTS else "keys with values"
    return _WORDS.get(origin) or str(getattr(origin, "__name__", origin))
