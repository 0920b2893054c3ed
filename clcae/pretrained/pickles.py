"""NVIDIA's .pkl files, read as data: stylegan2-ada-pytorch and the StyleGAN2 of stylegan3.

Such a file pickles each network with the Python source of its class, which NVIDIA's loader runs;
and the memory of each tensor as a file of torch.save within the pickle, which torch loads without
weights_only: two ways to run a stranger's code. Here the source is never compiled nor kept, and the
inner files go through the reader of `archives`. What remains of a network is its class's name, what
it was made with, and its state dict.
"""

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from clcae.pretrained.archives import read_stream, reading, telltale
from clcae.pretrained.machine import Call, Machine
from clcae.pretrained.stand_ins import Budget, Storage, names, ordered_dict

MAX_MODULES = 10_000
MAX_TENSORS = 100_000
MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")  # with which torch.save began
NETWORKS = ("G", "D", "G_ema")


@dataclass(frozen=True)
class Persistent:
    """A persistent object: the class's name and the attributes, as data."""

    class_name: str
    state: Mapping[str, Any]


@dataclass(frozen=True)
class Network:
    """A network of the file."""

    class_name: str
    init_args: tuple[Any, ...]
    init_kwargs: Mapping[str, Any]
    state: dict[str, Tensor]


def is_nvidia_pickle(file: BinaryIO) -> bool:
    """Whether a file begins as a pickle of networks, not as one of torch.save; reads its start."""
    start = file.read(64)
    return start[:1] == pickle.PROTO and MAGIC not in start


def read_nvidia_pickle(path: str | Path) -> dict[str, Network]:
    """The networks of a .pkl by name: those of "G", "D" and "G_ema" that it has.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such pickle, is damaged, or asks for anything but data; one line.
    """
    with reading(path) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        start = file.read(64)
        file.seek(0)
        if start[:1] != pickle.PROTO:
            raise ValueError(telltale(start))
        budget = Budget(size)
        table = names(budget) | {
            "dnnlib.util.EasyDict": Call(lambda *pairs: ordered_dict(budget, *pairs)),
            "dnnlib.EasyDict": Call(lambda *pairs: ordered_dict(budget, *pairs)),
            "torch_utils.persistence._reconstruct_persistent_obj": Call(_persistent),
            "torch.storage._load_from_bytes": Call(lambda data: _storage(data, budget)),
        }
        try:
            content = Machine(file, size=size, names=table).run()
        except ValueError as error:
            if "dnnlib.tflib" in str(error):
                raise ValueError(
                    "is a TensorFlow pickle; convert it with legacy.py of stylegan2-ada-pytorch"
                ) from error
            raise
        networks = content if isinstance(content, dict) else {}
        found = {name: networks[name] for name in NETWORKS if name in networks}
        if not found or not all(isinstance(value, Persistent) for value in found.values()):
            raise ValueError("is a pickle without the networks G, D or G_ema of NVIDIA's files")
        return {name: _network(value) for name, value in found.items()}


def _persistent(meta: Any) -> Persistent:
    if type(meta) is not dict or meta.get("type") != "class":
        raise ValueError("holds a persistent object of another form")
    name, state = meta.get("class_name"), meta.get("state")
    if not isinstance(name, str) or type(state) is not dict:
        raise ValueError("holds a persistent object without name or state")
    return Persistent(name, state)


def _storage(data: Any, budget: Budget) -> Storage:
    """The second hole closed: the file within the file is read as all others are."""
    if not isinstance(data, bytes):
        raise ValueError(f"loads a tensor from a {type(data).__name__}")
    budget.spend(len(data))
    storage = read_stream(io.BytesIO(data), len(data))
    if not isinstance(storage, Storage):
        raise ValueError(f"holds a {type(storage).__name__} where a tensor's memory is due")
    return storage


def _network(network: Persistent) -> Network:
    arguments, keywords = (network.state.get(key) for key in ("_init_args", "_init_kwargs"))
    return Network(
        class_name=network.class_name,
        init_args=tuple(arguments) if isinstance(arguments, tuple | list) else (),
        init_kwargs=keywords if isinstance(keywords, dict) else {},
        state=_flatten(network),
    )


def _flatten(network: Persistent) -> dict[str, Tensor]:
    """`state_dict` of a stand-in: parameters and persistent buffers of all modules within."""
    flat: dict[str, Tensor] = {}
    pending: list[tuple[str, Any]] = [("", network)]
    for _ in range(MAX_MODULES):
        if not pending:
            return flat
        prefix, module = pending.pop()
        if not isinstance(module, Persistent):
            raise ValueError(f"has a {type(module).__name__} for the module {prefix[:80]!r}")
        parts = [module.state.get(f"_{part}", {}) for part in ("parameters", "buffers", "modules")]
        skipped = module.state.get("_non_persistent_buffers_set", set())
        if not all(type(part) is dict for part in parts) or type(skipped) is not set:
            raise ValueError(f"has a damaged module {prefix[:80]!r}")
        tensors = parts[0] | {key: value for key, value in parts[1].items() if key not in skipped}
        for key, tensor in tensors.items():
            if tensor is None:
                continue
            if not isinstance(tensor, Tensor):
                raise ValueError(f"has a {type(tensor).__name__} for the tensor {prefix}{key}")
            flat[f"{prefix}{key}"] = tensor
        if len(prefix) > 1000 or len(flat) > MAX_TENSORS or len(parts[2]) > MAX_MODULES:
            raise ValueError("nests more modules or tensors than a network has")
        pending += [(f"{prefix}{k}.", v) for k, v in reversed(parts[2].items()) if v is not None]
    raise ValueError(f"has more than {MAX_MODULES} modules")
