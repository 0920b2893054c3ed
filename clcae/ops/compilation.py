"""Compiles functions by torch.compile, with the plain function as fallback."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


def compiled_or_plain(
    function: Callable[..., Result], *, enabled: bool = True, dynamic: bool | None = None
) -> Callable[..., Result]:
    """Compiles a function at its first call; runs it plainly if compilation fails.

    The reason of a failure is logged once. Functions that are differentiated twice (R1, path
    length) must not be compiled; weights may change between calls. `enabled=False` returns the
    function itself; `dynamic` compiles once for tensors of every size (None: torch decides).
    """
    if not enabled:
        return function
    fast: Callable[..., Result] = torch.compile(function, dynamic=dynamic)
    failed = False

    def call(*args: Any, **kwargs: Any) -> Result:
        nonlocal failed
        if not failed:
            try:
                return fast(*args, **kwargs)
            except Exception as error:  # the compiler's errors share no narrower class
                failed = True
                reason = " ".join(str(error).split())[:200] or repr(error)
                _log.warning("running without torch.compile: %s", reason)
        return function(*args, **kwargs)

    return call
