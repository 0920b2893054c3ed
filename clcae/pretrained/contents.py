"""The contents of an official file: sections of tensors by name, and an account of their use."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from clcae.pretrained import nvidia
from clcae.pretrained.keymap import KeyMap
from clcae.quoting import listing, one_line
from clcae.unpickling.modules import ModuleStandIn, ModuleState
from clcae.unpickling.torch_file import is_other_pickle, peek, read_torch_file, reading
from clcae.unpickling.unpickler import Array, Attributes

GROWTH = 2  # the tensors of a section are at most so many times the file, beside some megabytes
SPARE = 1 << 24
WRAPPED = re.compile(r"(^|\.)(?:(?:module|_orig_mod)\.)+")  # by nn.DataParallel, by torch.compile
NOT_WRAPPED = "module.encoder_q."  # MoCo's own names
# Names of networks whose official files keep the state dict in a section.
SECTIONED = re.compile(r"(module\.)?(encoder(_q)?|(image|latent)_projection)\.")


class Contents:
    """The tree of an official file: sections of tensors by name.

    Args:
        tree: the file's dictionary; of a .pkl, the networks' state dicts by name.
        networks: of a .pkl, the networks themselves.
        size: of the file, in bytes.
    """

    def __init__(
        self,
        tree: Mapping[Any, Any],
        *,
        networks: Mapping[str, nvidia.Network] | None = None,
        size: int,
    ) -> None:
        self.tree, self.networks, self.size = tree, networks or {}, size
        self.used: list[str] = []  # keys of tensors, those of a section behind its name
        self.ignored: list[str] = []  # those of them that carry nothing
        self.notes: list[str] = []  # what was assumed or computed
        self._sections: set[str] = set()

    @classmethod
    def open(cls, path: str | Path) -> "Contents":
        """Reads a .pkl of NVIDIA's or a file of torch.save; which it is, its bytes say.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it cannot be read as data, or is no dictionary.
        """
        with reading(path) as file:
            start = peek(file)
        size = Path(path).stat().st_size
        if is_other_pickle(start):
            networks = nvidia.read_nvidia_pickle(path)
            tree = {name: network.state for name, network in networks.items()}
            return cls(tree, networks=networks, size=size)
        content = read_torch_file(path)
        if not isinstance(content, dict):
            raise ValueError(f"{path} holds a {type(content).__name__}, expected a dictionary")
        notes = [*_notes_of_modules(content)]
        if isinstance(content, ModuleState):
            content = _as_official(content)
        plain = unwrapped({key: unwrapped(value) for key, value in content.items()})
        contents = cls(plain, size=size)
        contents.notes += notes
        if any(_is_wrapped(part) for part in (content, *content.values())):
            contents.notes.append("names are read without the module. or _orig_mod. of a wrapper")
        return contents

    def has(self, *keys: str) -> bool:
        """Returns whether there is something under the keys, each within the one before."""
        found: Any = self.tree
        for key in keys:
            if not isinstance(found, Mapping) or key not in found:
                return False
            found = found[key]
        return True

    def state(self, *section: str) -> dict[str, Tensor]:
        """Returns the state dict under a name, or the whole file's tensors; it counts as used.

        Raises:
            ValueError: if something else than tensors is there, or more than the file can hold.
        """
        found = self.tree[section[0]] if section else tensors_of(self.tree)
        if not isinstance(found, Mapping):
            raise ValueError(f"{'.'.join(section)} is a {type(found).__name__}, expected a dict")
        check_memory(found.values(), size=self.size)
        state = {str(key): tensor_of(str(key), value) for key, value in found.items()}
        self._sections.update(section or state)
        self.used += [".".join([*section, key]) for key in state]
        return state

    def tensor(self, key: str) -> Tensor | None:
        """Returns the tensor under a name at the top, which counts as used; None if none is."""
        if self.tree.get(key) is None:
            return None
        self._sections.add(key)
        self.used.append(key)
        return tensor_of(key, self.tree[key])

    def ignore(self, keymap: KeyMap, section: str) -> None:
        """Accounts for the keys of a section that a table ignores."""
        self.ignored += [f"{section}.{key}" for key in self.tree[section] if keymap.ignores(key)]

    def options(self) -> Mapping[str, Any]:
        """Returns the command-line options of the training; empty where there are none."""
        options = self.tree.get("opts")
        if isinstance(options, Attributes):
            options = options.values
        return options if isinstance(options, Mapping) else {}

    def unused(self) -> dict[str, Any]:
        """Returns what lies at the top of the file and nothing has used, by name."""
        return {str(k): part for k, part in self.tree.items() if str(k) not in self._sections}

    def describe(self) -> str:
        """Lists the names at the top, shortened."""
        return listing([*self.tree], 6) or "nothing"


def _notes_of_modules(content: Mapping[Any, Any]) -> Iterator[str]:
    for name, part in [("the file", content), *content.items()]:
        if isinstance(part, ModuleState):
            yield (
                f"{one_line(name, 80)} is a whole module ({one_line(part.class_name, 80)}): its "
                "tensors are read, its code is not run"
            )


def _as_official(module: ModuleState) -> dict[Any, Any]:
    """Returns a module that is a whole file in the sections that its official file has."""
    if not any(map(SECTIONED.match, module)):
        return module
    held = module.attributes
    content: dict[Any, Any] = {"state_dict": module}
    if isinstance(options := held.get("opts"), Mapping | Attributes):
        content["opts"] = options
    if "encoder.styles.0.linear.weight" in module and _is_tensor(held.get("latent_avg")):
        content["latent_avg"] = held["latent_avg"]
    return content


def unwrapped(value: Any) -> Any:
    """Returns a state dict under the names its network has without a wrapper, all else as it is."""
    if not isinstance(value, dict) or not _is_wrapped(value):
        return value
    plain = {WRAPPED.sub(r"\1", key) if isinstance(key, str) else key: value[key] for key in value}
    return plain if len(plain) == len(value) else value


def _is_wrapped(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    names = [key for key in value if isinstance(key, str)]
    wrapped = any(map(WRAPPED.search, names))
    return wrapped and not any(name.startswith(NOT_WRAPPED) for name in names)


def tensors_of(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """Returns the entries that are tensors or arrays of numbers."""
    return {key: value for key, value in values.items() if _is_tensor(value)}


def _is_tensor(value: Any) -> bool:
    numeric = isinstance(value, Array) and value.value.dtype.kind in "fiub"
    return numeric or isinstance(value, Tensor)


def holds_tensors(value: Any) -> bool:
    """Returns whether there is a tensor or an array of numbers in a value, however nested."""
    pending, seen = [value], set[int]()
    while pending:
        part = pending.pop()
        if _is_tensor(part):
            return True
        if id(part) in seen or isinstance(part, str):
            continue
        seen.add(id(part))
        if isinstance(part, Attributes):
            pending.append(part.values)
        elif isinstance(part, ModuleStandIn):
            pending.append(part.state)
        elif isinstance(part, Mapping):
            pending += part.values()
        elif isinstance(part, list | tuple | set | frozenset):
            pending += part
    return False


def check_memory(values: Iterable[Any], *, size: int) -> None:
    """Checks the sum of tensors before any is copied: names may share one of them.

    Args:
        values: tensors, arrays, and others, which count nothing.
        size: of the file, in bytes.

    Raises:
        ValueError: if copies would fill more than the file can hold.
    """
    if sum(map(_num_bytes, values)) > GROWTH * size + SPARE:
        raise ValueError("its tensors share memory and would fill more than the file holds")


def _num_bytes(value: Any) -> int:
    if isinstance(value, Array):
        return int(value.value.nbytes)
    return value.nbytes if isinstance(value, Tensor) else 0


def tensor_of(key: str, value: Any) -> Tensor:
    """Returns a value as a tensor. Raises ValueError, with its key, if it is none."""
    if isinstance(value, Array):
        return value.tensor
    if not isinstance(value, Tensor):
        raise ValueError(f"{one_line(key, 80)} is a {type(value).__name__}, expected a tensor")
    return value
