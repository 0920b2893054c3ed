"""Modules built for weights that are about to be assigned: no memory, no random numbers."""

import threading
from collections.abc import Callable
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
        Tensor.normal_,
        Tensor.uniform_,
        nn.init.kaiming_normal_,
        nn.init.kaiming_uniform_,
        nn.init.normal_,
        nn.init.trunc_normal_,
        nn.init.uniform_,
        nn.init.xavier_normal_,
        nn.init.xavier_uniform_,
    }
)
_FACTORIES = _RANDOM | {torch.empty, torch.zeros, torch.ones, torch.full, torch.arange, torch.eye}

ModuleType = TypeVar("ModuleType", bound=nn.Module)


def without_weights(
    make: Callable[[], ModuleType],
    *,
    most: int,
    largest: int,
) -> ModuleType:
    """Build a module whose parameters have shapes but no memory, and whose buffers are whole.

    For weights that are about to be assigned. Nothing is drawn at random. A constructor therefore
    must not compute with its own parameters. Settings may come from a stranger's file, so that
    there are limits to what a constructor can ask for.

    Args:
        make: Constructs the module.
        most: How many parameters it may register, beside some hundreds.
        largest: How many numbers a tensor may have, beside some millions.

    Returns:
        The module, with parameters on the meta device.

    Raises:
        ValueError: If it asks for more than that.
    """
    owner, count = threading.get_ident(), 0

    def register(_: nn.Module, __: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        nonlocal count
        if parameter is None or threading.get_ident() != owner or parameter.is_meta:
            return None
        count += 1
        if count > most + _SPARE_PARAMETERS:
            raise ValueError(f"more than {count - 1} parameters are described, but not given")
        return nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)

    hook: Callable[..., Any] = register  # torch annotates its result as None, but uses it
    handle = register_module_parameter_registration_hook(hook)
    try:
        with _Undrawn(largest):
            return make()
    finally:
        handle.remove()


class Uninitialised(TorchFunctionMode):
    """A context in which initialisers draw nothing, and no tensor has more than so many numbers.

    For code that builds a module and then fills it whole from a stranger's file, whose sizes it
    believes.

    Args:
        largest: How many numbers a tensor may have, beside some millions.

    Raises:
        ValueError: Within the block, by what asks for a larger one.
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
        kwargs = dict(kwargs or {})
        if function in _INITIALISERS:
            return args[0] if args else kwargs["tensor"]
        if function in _FACTORIES:
            plain = {key: value for key, value in kwargs.items() if key != "generator"}
            self._check(function(*args, **{**plain, "device": "meta"}))
        result = function(*args, **kwargs)
        if isinstance(result, Tensor):
            self._check(result)
        return result

    def _check(self, tensor: Tensor) -> None:
        if tensor.numel() > self.largest:
            raise ValueError(f"a tensor of {tensor.numel()} numbers is described, but not given")


class _Undrawn(Uninitialised):
    """Random tensors are left as memory is found, too."""

    def __torch_function__(
        self,
        function: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if function in _RANDOM:
            plain = {key: value for key, value in (kwargs or {}).items() if key != "generator"}
            shape = function(*args, **{**plain, "device": "meta"})
            self._check(shape)
            return torch.empty_like(shape, device=plain.get("device", "cpu"))
        return super().__torch_function__(function, types, args, kwargs)
