"""Terms that depend on frozen weights alone."""

import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Terms = TypeVar("Terms")


class FrozenTerms:
    """Caches terms computed from frozen weights; recomputed when a weight changes."""

    def __init__(self) -> None:
        self._found: dict[Any, tuple[Callable[[], Tensor | None], tuple[Any, ...], Any]] = {}

    def of(self, weight: Tensor, prepare: Callable[..., Terms], *settings: Any) -> Terms | None:
        """Returns prepare(weight, *settings); None if the weight trains, or a compiler traces."""
        if torch.compiler.is_compiling() or weight.requires_grad or weight.is_inference():
            return None
        key = (weight.data_ptr(), weight._version, weight.device, weight.dtype)
        name = (prepare, *settings)
        found = self._found.get(name)
        if found is None or found[0]() is not weight or found[1] != key:
            with torch.inference_mode(False), torch.no_grad():  # autograd may use it later
                found = weakref.ref(weight), key, prepare(weight, *settings)
            self._found[name] = found
        terms: Terms = found[2]
        return terms

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenTerms, ()  # a copied layer starts with an empty cache
