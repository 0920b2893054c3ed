"""Builds modules whose weights are about to be assigned: no memory, no random numbers.

Settings and weights may come from a stranger's file: types, sizes and numbers are checked.
"""

import inspect
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from clcae.quoting import listing, one_line, shown

LARGEST_SETTING = 1 << 24
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


def check_types(cls: type, settings: Mapping[str, Any]) -> None:
    """Compares settings, as JSON holds them, with the annotations of a class's constructor.

    Raises:
        ValueError: if one is of another type, or a number is not finite.
    """
    kinds = get_type_hints(cls.__init__)  # type: ignore[misc]
    for name, value in settings.items():
        if name in kinds and not _fits(value, kinds[name]):
            expected = inspect.formatannotation(kinds[name])
            raise ValueError(f"{name} is {shown(value)}, expected {one_line(expected, 200)}")


def _fits(value: Any, kind: Any) -> bool:
    if kind is Any:
        return True
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, choice) for choice in inner)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in inner)
    if origin in (tuple, list, Sequence):
        return isinstance(value, list) and all(_fits(part, inner[0]) for part in value)
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(_fits(part, inner[1]) for part in value.values())
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if kind in (int, bool, str, NoneType):
        return type(value) is kind
    return not isinstance(kind, type) or isinstance(value, kind)


def check_sizes(settings: Mapping[str, Any]) -> None:
    """Refuses numbers by which a constructor would multiply its lists.

    Raises:
        ValueError: if there is one, however deeply nested.
    """
    pending: list[Any] = [settings]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list):
            pending += value
        elif isinstance(value, int) and abs(value) > LARGEST_SETTING:
            raise ValueError(f"a setting is {shown(value)}, at most {LARGEST_SETTING}")


def require_positive(**numbers: float | None) -> None:
    """Checks settings that no shape of a weight tells; None stands for a default.

    Raises:
        ValueError: if one is not positive, or not finite.
    """
    for name, number in numbers.items():
        if number is not None and not 0 < number < math.inf:
            raise ValueError(f"{name} is {number}, expected a positive number")


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


def is_finite(tensor: Tensor) -> bool:
    """Returns whether a tensor holds no NaN and no infinity; integers never do."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    # The extremes are NaN where any value is; isfinite of all would take a copy.
    return all(bool(extreme.isfinite()) for extreme in tensor.detach().aminmax())


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Checks that weights are numbers.

    Raises:
        ValueError: if some hold NaN or infinity; lists them.
    """
    wrong = [key for key, value in weights.items() if not is_finite(value)]
    if wrong:
        raise ValueError(f"NaN or infinite weights: {listing(wrong, 5)}")
