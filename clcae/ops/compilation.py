"""torch.compile where it works, the same function where it does not."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


def compiled_or_plain(
    function: Callable[..., Result], *, enabled: bool = True, dynamic: bool | None = None
) -> Callable[..., Result]:
    """`function`, compiled at its first call.

    Without a compiler on the machine (or for a function that cannot be compiled) the function runs
    as it is; the reason is logged once. Never for what is differentiated twice (R1, path length).

    Args:
        function: of tensors; its modules may change their weights in between.
        enabled: False returns the function itself.
        dynamic: one program for tensors of every size; None is torch's own choice.
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
