"""Builds modules whose weights are about to be assigned: no memory, no random numbers."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

_SPARE_PARAMETERS = 256  # registered by a constructor and replaced again
_SPARE_NUMBERS = 1 << 24  # in a computed buffer that files do not hold
_RANDOM = frozenset({torch.randn, torch.rand})
_INITIALISERS = frozenset(
    {
        *(Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_),
        *(nn.init.kaiming_normal_, nn.init.kaiming_uniform_, nn.init.trunc_normal_),
        *(nn.init.xavier_normal_, nn.init.xavier_uniform_),
    }
)
_FACTORIES = _RANDOM | {torch.empty, torch.zeros, torch.ones, torch.full, torch.arange, torch.eye}

ModuleType = TypeVar("ModuleType", bound=nn.Module)


def without_weights(make: Callable[[], ModuleType], *, sizes: Sequence[int]) -> ModuleType:
    """Builds a module whose parameters have shapes but no memory, and whose buffers are whole.

    Nothing is drawn at random. A constructor therefore must not compute with its own parameters.
    Settings may come from a stranger's file, so that what a constructor may ask for is limited by
    what the file holds.

    Args:
        make: constructs the module.
        sizes: numbers of elements of the tensors that will fill it. There may be twice as many
            parameters, and a tensor four times as large as the largest, beside a fixed surplus.

    Raises:
        ValueError: if it asks for more than that.
    """
    owner, count, most = threading.get_ident(), 0, 2 * len(sizes) + _SPARE_PARAMETERS

    def register(_: nn.Module, __: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        nonlocal count
        if parameter is None or threading.get_ident() != owner or parameter.is_meta:
            return None
        count += 1
        if count > most:
            raise ValueError(f"more than {count - 1} parameters are described, but not given")
        return nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)

    hook: Callable[..., Any] = register  # torch annotates its result as None, but uses it
    handle = register_module_parameter_registration_hook(hook)
    try:
        with _Undrawn(4 * max(sizes, default=0)):
            return make()
    finally:
        handle.remove()


class SizeLimit(TorchFunctionMode):
    """A context in which no tensor may be larger than `largest` numbers and a fixed surplus.

    For computing with a module whose sizes come from a stranger's file; what asks for a larger one
    raises ValueError.
    """

    def __init__(self, largest: int) -> None:
        super().__init__()
        self.largest = largest + _SPARE_NUMBERS

    def __torch_function__(
        self,
        function: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = self._made(function, args, kwargs or {})
        if isinstance(result, Tensor):
            self._check(result)
        return result

    def _made(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if function in _FACTORIES:
            self._shape(function, args, kwargs)
        return function(*args, **kwargs)

    def _shape(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Returns what a factory would make, without its memory, once it is small enough."""
        plain = {key: value for key, value in kwargs.items() if key != "generator"}
        shape: Tensor = function(*args, **{**plain, "device": "meta"})
        self._check(shape)
        return shape

    def _check(self, tensor: Tensor) -> None:
        if tensor.numel() > self.largest:
            raise ValueError(f"a tensor of {tensor.numel()} numbers is described, but not given")


class _Undrawn(SizeLimit):
    """Leaves random tensors and initialised ones as memory is found, too."""

    def _made(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if function in _INITIALISERS:
            return args[0] if args else kwargs["tensor"]
        if function in _RANDOM:
            shape = self._shape(function, args, kwargs)
            return torch.empty_like(shape, device=kwargs.get("device", "cpu"))
        return super()._made(function, args, kwargs)
