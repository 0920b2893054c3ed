"""A total, two-way table between the keys of a foreign state dict and ours.

Every source key is used or ignored by name, every target is filled, every shape agrees; anything
else is one error that lists what is wrong. Nothing is ever loaded in part.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

from clcae.construction import without_weights

ModuleType = TypeVar("ModuleType", bound=nn.Module)

_passed_over: ContextVar[list[str] | None] = ContextVar("_passed_over", default=None)

LISTED = 4  # keys named in an error, of each kind


def same(tensor: Tensor) -> Tensor:
    """No change."""
    return tensor


def drop_axis(tensor: Tensor) -> Tensor:
    """Without the leading axis of length one."""
    return tensor.squeeze(0)


def add_axis(tensor: Tensor) -> Tensor:
    """With a leading axis of length one."""
    return tensor.unsqueeze(0)


@dataclass(frozen=True)
class Entry:
    """One tensor's names on both sides, and how it changes on the way."""

    source: str
    target: str
    to_ours: Callable[[Tensor], Tensor] = same
    to_theirs: Callable[[Tensor], Tensor] = same


@dataclass(frozen=True)
class KeyMap:
    """The table of one layout."""

    layout: str
    entries: tuple[Entry, ...]
    ignored: tuple[str, ...] = ()  # regular expressions of source keys that carry nothing
    constants: Mapping[str, Tensor] = field(default_factory=dict)  # source keys with a known value

    def to_ours(self, state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
        """The state dict of `module` from a foreign one.

        Raises:
            ValueError: keys are missing, unexpected, or of another shape; the message lists them.
        """
        expected = module.state_dict()
        log = _passed_over.get()
        if log is not None:
            log += [key for key in state if self._ignores(key)]
        known = {entry.source for entry in self.entries} | set(self.constants)
        unexpected = [key for key in state if key not in known and not self._ignores(key)]
        missing = [entry.source for entry in self.entries if entry.source not in state]
        unfilled = sorted(set(expected) - {entry.target for entry in self.entries})
        ours: dict[str, Tensor] = {}
        wrong = []
        for entry in self.entries:
            if entry.source not in state:
                continue
            given, target = state[entry.source], expected.get(entry.target)
            try:
                tensor = entry.to_ours(given)
            except (IndexError, RuntimeError):
                wrong.append(f"{entry.source} {tuple(given.shape)}")
                continue
            if target is None or tensor.shape != target.shape:
                wrong.append(f"{entry.source} {tuple(given.shape)}")
                continue
            ours[entry.target] = tensor.to(target.dtype)
        self._refuse(missing + unfilled, unexpected, wrong)
        self._check_constants(state)
        return ours

    def build(self, state: Mapping[str, Tensor], make: Callable[[], ModuleType]) -> ModuleType:
        """The module that `make` constructs, with a foreign state dict's values in it.

        The widths that `make` uses may come from the file: nothing is allocated before all shapes
        agree with it.

        Raises:
            ValueError: as `to_ours`.
        """
        largest = max((tensor.numel() for tensor in state.values()), default=0)
        module = without_weights(make, most=len(self.entries), largest=4 * largest)
        ours = self.to_ours(state, module)
        module.load_state_dict({key: value.clone() for key, value in ours.items()}, assign=True)
        return module

    def to_theirs(self, module: nn.Module) -> dict[str, Tensor]:
        """The foreign state dict that holds what `module` holds; constants are written too."""
        state = module.state_dict()
        theirs = {entry.source: entry.to_theirs(state[entry.target]) for entry in self.entries}
        return theirs | {key: value.clone() for key, value in self.constants.items()}

    def _ignores(self, key: str) -> bool:
        return any(re.fullmatch(pattern, key) for pattern in self.ignored)

    def _refuse(self, missing: list[str], unexpected: list[str], wrong: list[str]) -> None:
        if missing or unexpected or wrong:
            raise ValueError(
                f"this is no {self.layout}: {_listing('missing', missing)}; "
                f"{_listing('unexpected', unexpected)}; {_listing('of another shape', wrong)}"
            )

    def _check_constants(self, state: Mapping[str, Tensor]) -> None:
        for key, value in self.constants.items():
            given = state.get(key)
            if given is not None and not torch.allclose(
                given.float().reshape(-1), value.reshape(-1), atol=1e-5
            ):
                raise ValueError(
                    f"{self.layout}: {key} is not the [1, 3, 3, 1] filter, the only one supported"
                )


@contextmanager
def passed_over() -> Iterator[list[str]]:
    """Collects the source keys that maps ignore by name within the block."""
    log: list[str] = []
    token = _passed_over.set(log)
    try:
        yield log
    finally:
        _passed_over.reset(token)


def _listing(kind: str, keys: Iterable[str]) -> str:
    keys = list(keys)
    if not keys:
        return f"none {kind}"
    more = f" and {len(keys) - LISTED} more" if len(keys) > LISTED else ""
    return f"{len(keys)} {kind} ({', '.join(keys[:LISTED])}{more})"


def require(state: Mapping[str, Tensor], keys: Iterable[str], layout: str) -> None:
    """Checks that the keys from which a network's settings are read are there.

    Raises:
        ValueError: some are not; the message lists them.
    """
    missing = [key for key in keys if key not in state]
    if missing:
        raise ValueError(f"this is no {layout}: {_listing('missing', missing)}")
