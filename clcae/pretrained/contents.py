"""What a stranger's file holds, and which of it has been used."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clcae.pretrained.archives import read_torch_file, reading
from clcae.pretrained.pickles import Network, is_nvidia_pickle, read_nvidia_pickle
from clcae.pretrained.stand_ins import Array, Attributes

GROWTH = 2  # the tensors of a section are at most so many times the file, beside some megabytes
SPARE = 1 << 24


class Contents:
    """The tree of an official file: sections of tensors by name.

    Args:
        tree: the file's dictionary; of a .pkl, the networks' state dicts by name.
        networks: of a .pkl, the networks themselves.
        size: of the file, in bytes.
    """

    def __init__(
        self, tree: Mapping[Any, Any], *, networks: Mapping[str, Network] | None = None, size: int
    ) -> None:
        self.tree, self.networks, self.size = tree, networks or {}, size
        self.used: list[str] = []  # keys of tensors, those of a section behind its name
        self.notes: list[str] = []  # what was assumed or computed
        self._sections: set[str] = set()

    @classmethod
    def open(cls, path: str | Path) -> "Contents":
        """Reads a .pkl of NVIDIA's or a file of torch.save; which it is, its bytes say.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it cannot be read as data, or is no dictionary.
        """
        with reading(path) as file:
            nvidia = is_nvidia_pickle(file)
        size = Path(path).stat().st_size
        if nvidia:
            networks = read_nvidia_pickle(path)
            tree = {name: network.state for name, network in networks.items()}
            return cls(tree, networks=networks, size=size)
        content = read_torch_file(path)
        if not isinstance(content, dict):
            raise ValueError(f"{path} holds a {type(content).__name__}, expected a dictionary")
        return cls(content, size=size)

    def has(self, *keys: str) -> bool:
        """Whether there is something under the keys, each within the one before."""
        found: Any = self.tree
        for key in keys:
            if not isinstance(found, Mapping) or key not in found:
                return False
            found = found[key]
        return True

    def state(self, *section: str) -> dict[str, Tensor]:
        """The state dict under the name, or the whole file's; it counts as used.

        Raises:
            ValueError: something else than tensors is there, or more than the file can hold.
        """
        found = self.tree[section[0]] if section else self.tree
        if not isinstance(found, Mapping):
            raise ValueError(f"{'.'.join(section)} is a {type(found).__name__}, expected a dict")
        state = {str(key): self._tensor(str(key), value) for key, value in found.items()}
        if sum(tensor.nbytes for tensor in state.values()) > GROWTH * self.size + SPARE:
            raise ValueError("its tensors share memory and would fill more than the file holds")
        self._sections.update(section or state)
        self.used += [".".join([*section, key]) for key in state]
        return state

    def tensor(self, key: str) -> Tensor | None:
        """The tensor under a name at the top, which counts as used; None where there is none."""
        if self.tree.get(key) is None:
            return None
        self._sections.add(key)
        self.used.append(key)
        return self._tensor(key, self.tree[key])

    def options(self) -> Mapping[str, Any]:
        """The command-line options the file was trained with; empty where there are none."""
        options = self.tree.get("opts")
        if isinstance(options, Attributes):
            options = options.values
        return options if isinstance(options, Mapping) else {}

    def unused(self) -> list[str]:
        """Names at the top of the file that nothing has used."""
        return [str(key) for key in self.tree if str(key) not in self._sections]

    def describe(self) -> str:
        """The names at the top, shortened."""
        names = [str(key) for key in self.tree]
        more = f" and {len(names) - 6} more" if len(names) > 6 else ""
        return (", ".join(name[:60] for name in names[:6]) or "nothing") + more

    @staticmethod
    def _tensor(key: str, value: Any) -> Tensor:
        if isinstance(value, Array):
            return torch.from_numpy(value.value.astype(value.value.dtype.newbyteorder("=")))
        if not isinstance(value, Tensor):
            raise ValueError(f"{key[:80]} is a {type(value).__name__}, expected a tensor")
        return value


def source_keys(names: Iterable[str], used: Iterable[str]) -> set[str]:
    """The full names of keys that a map knows without the prefix of their section."""
    used = list(used)
    tails: dict[str, list[str]] = {}
    for key in used:
        parts = key.split(".")
        for first in range(len(parts)):
            tails.setdefault(".".join(parts[first:]), []).append(key)
    return {key for name in names for key in tails.get(name, [])}


def sha256(path: str | Path) -> str:
    """Digest of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
