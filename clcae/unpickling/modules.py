"""Reads whole modules that torch.save pickled: their tensors by name, and none of their code.

A pickled module is the name of its class and the attributes of the object. The class is never
imported: a stand-in takes the attributes, and the state dict is collected from `_parameters`,
`_buffers` and `_modules`, as `nn.Module.state_dict` does. Deviation: what a class changes by code
of its own (hooks, `get_extra_state`) is not known.
"""

import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from clcae.quoting import one_line, shown
from clcae.unpickling.unpickler import MAX_NAME, MAX_TEXT, Budget, StandIn, Unpickler

MAX_DEPTH = 100  # of modules within modules; official networks have less than ten
MAX_MODULES = 10_000
MAX_TENSORS = 100_000
_ENTRY = 128  # bytes that an entry of a dict takes beside its name
_PARTS = ("_parameters", "_buffers", "_modules")


@dataclass(frozen=True)
class UnknownClass:
    """Replaces a class that a file names and that is not on the allow-list."""

    name: str


class ModuleStandIn(StandIn):
    """Replaces a module; keeps the name of its class and its attributes."""

    def __init__(self, class_name: str, state: Mapping[str, Any] | None = None) -> None:
        self.class_name, self.state = class_name, {} if state is None else state

    def build(self, state: Any) -> None:
        """Takes the attributes of a module."""
        if type(state) is not dict or not all(type(state.get(part)) is dict for part in _PARTS):
            raise ValueError("sets the state of something else than a module")
        self.state = state


class ModuleState(dict[str, Tensor]):
    """The state dict of a whole module, with its class's name and its public attributes."""

    def __init__(self, module: ModuleStandIn, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(tensors)
        self.class_name = module.class_name
        self.attributes = {k: v for k, v in module.state.items() if not str(k).startswith("_")}


class ModuleUnpickler(Unpickler):
    """Unpickles plain data, and objects of unknown classes where their state is a module's.

    Of such a class one thing alone is understood: an object made without arguments, whose state is
    set once to a module's. Everything else is refused, a class that is only named among it.
    """

    def __init__(self, *given: Any, **allowed: Any) -> None:
        super().__init__(*given, **allowed)
        self.classes: set[str] = set()
        self.modules: list[ModuleStandIn] = []

    def load(self) -> Any:
        """Returns the content. Raises ValueError if a class was named for anything but modules."""
        content = super().load()
        for module in self.modules:
            if not module.state:
                raise self.refusal(module.class_name)
        for name in sorted(self.classes - {module.class_name for module in self.modules}):
            raise self.refusal(name)
        return content

    def find_class(self, module: str, name: str) -> Any:
        """Returns the table's entry or an UnknownClass, never one of Python's own library."""
        full = f"{module}.{name}"
        parts = full[: MAX_NAME + 1].split(".")
        own = parts[0] in sys.stdlib_module_names or parts[0] == "__builtin__"
        if full in self.names or own or len(full) > MAX_NAME or "." in name:
            return super().find_class(module, name)
        if not all(map(str.isidentifier, parts)):
            return super().find_class(module, name)
        self.classes.add(full)
        return UnknownClass(full)

    def persistent_load(self, pid: Any) -> Any:
        """Returns a storage, or the class of ("module", class, file, source) of older torch."""
        of_class = type(pid) is tuple and len(pid) == 4 and pid[0] == "module"
        if of_class and isinstance(pid[1], UnknownClass):
            return pid[1]
        return super().persistent_load(pid)

    def _reduce(self) -> None:
        if isinstance(target := self.stack[-2], UnknownClass):
            raise self.refusal(target.name)
        self._call()

    def _new(self) -> None:
        target = self.stack[-2]
        if not isinstance(target, UnknownClass):
            self._call()
            return
        arguments = self.stack[-1]
        if type(arguments) is not tuple or arguments or len(self.modules) == MAX_MODULES:
            raise self.refusal(target.name)
        self.modules.append(ModuleStandIn(target.name))
        self.stack[-2:] = [self.modules[-1]]

    def _set_state(self) -> None:
        target = self.stack[-2]
        if isinstance(target, ModuleStandIn):
            try:
                self._build()
            except ValueError as error:
                raise self.refusal(target.class_name) from error
        else:
            self._build()

    dispatch = type(Unpickler.dispatch)(Unpickler.dispatch)
    dispatch[pickle.REDUCE[0]] = _reduce
    dispatch[pickle.NEWOBJ[0]] = _new
    dispatch[pickle.BUILD[0]] = _set_state


def with_state_dicts(content: Any, budget: Budget) -> Any:
    """Returns the content with state dicts in place of modules: itself, or the values of its dict.

    Modules that lie deeper stay stand-ins.

    Raises:
        ValueError: if a module is damaged, or too large for the file.
    """
    states: dict[int, ModuleState] = {}

    def converted(value: Any) -> Any:
        if not isinstance(value, ModuleStandIn):
            return value
        if id(value) not in states:
            states[id(value)] = ModuleState(value, state_dict_of(value, budget))
        return states[id(value)]

    if type(content) is dict:
        return {key: converted(value) for key, value in content.items()}
    return converted(content)


def state_dict_of(module: ModuleStandIn, budget: Budget) -> dict[str, Tensor]:
    """Returns the state dict: parameters and persistent buffers of all modules within, in order.

    Raises:
        ValueError: if there is something else than tensors or modules, or if modules are nested too
            deeply, within themselves, or are too many for the file.
    """
    flat: dict[str, Tensor] = {}
    pending: list[tuple[str, int, Any]] = [("", 0, module)]
    count = 1
    while pending:
        prefix, depth, part = pending.pop()
        tensors, children = _parts(prefix, part)
        for name, tensor in tensors.items():
            flat[_checked(f"{prefix}{name}", budget)] = tensor
        count += len(children)
        if count > MAX_MODULES or len(flat) > MAX_TENSORS:
            raise ValueError(f"has more than {MAX_MODULES} modules or {MAX_TENSORS} tensors")
        if children and depth == MAX_DEPTH:
            raise ValueError(f"nests more than {MAX_DEPTH} modules, or one within itself")
        for name, child in reversed(children.items()):
            pending.append((_checked(f"{prefix}{name}.", budget), depth + 1, child))
    return flat


def _parts(prefix: str, module: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns what a module holds itself by name: tensors of its state dict, and modules."""
    if not isinstance(module, ModuleStandIn):
        raise ValueError(f"has a {type(module).__name__} for the module {shown(prefix)}")
    parts = [module.state.get(part, {}) for part in _PARTS]
    skipped = module.state.get("_non_persistent_buffers_set", set())
    if not all(type(part) is dict for part in parts) or type(skipped) is not set:
        raise ValueError(f"has a damaged module {shown(prefix)}")
    parameters, buffers, children = parts
    names = [*parameters, *buffers, *children]
    if not all(isinstance(name, str) and name and "." not in name for name in names):
        raise ValueError(f"has a damaged module {shown(prefix)}: a name is no plain text")
    if len({*names}) < len(names):
        raise ValueError(f"has a damaged module {shown(prefix)}: a name stands for two things")
    tensors = parameters | {key: value for key, value in buffers.items() if key not in skipped}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor | None):
            full = one_line(f"{prefix}{name}", 80)
            raise ValueError(f"has a {type(tensor).__name__} for the tensor {full}")
    held = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    return held, {name: child for name, child in children.items() if child is not None}


def _checked(name: str, budget: Budget) -> str:
    if len(name) > MAX_TEXT:
        raise ValueError(f"has the overlong name {shown(name)}")
    budget.spend(len(name) + _ENTRY)
    return name
