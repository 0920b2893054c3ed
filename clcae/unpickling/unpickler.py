"""Unpickles weights as plain data: an allow-list of names, inert stand-ins for objects.

Tensors and arrays are rebuilt by code that compares every size, stride and offset with the bytes
there are; nothing of a file is imported or called. `pickle._Unpickler`, the one in Python, does the
work, since neither torch.load nor the one in C passes test_bombs.py and test_hostile.py (torch
2.15, Python 3.11): `torch.load(weights_only=True)` and a C `pickle.Unpickler` with an allow-list
both crash the process on "nested tuples as a key" and spend 14 to 23 s on "colliding keys";
torch.load reads no pickle of protocol 4, either, and compares no checksum of an archive.
"""

import functools
import math
import pickle
import pickletools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from clcae.quoting import shown

SAVE_STATE = "save a whole network's weights alone, torch.save(network.state_dict(), FILE)"
MAX_READS = 4_000_000  # two or three an operation, of which official files have some ten thousands
MAX_NAME = 512  # bytes of a dotted name
MAX_KEY = 1 << 60  # larger integers can be chosen to collide in a dict
MAX_TEXT = 1024  # characters of a text that is a key
MAX_AXES = 16
EXPANDED = 1 << 16  # a tensor that repeats its storage (stride 0) has at most so many elements
SLACK = 1 << 20  # bytes that may be made of a small file beyond its own size
_DTYPES = {
    **{"Double": torch.float64, "Float": torch.float32, "Half": torch.float16},
    **{"BFloat16": torch.bfloat16, "Long": torch.int64, "Int": torch.int32},
    **{"Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8, "Bool": torch.bool},
}
_ARRAY_CODE = re.compile(r"[fiu][248]|[iub]1|[US]\d{1,4}")  # numbers, or texts beside weights


class Budget:
    """Bounds what is made of a file: twice its bytes, since they come as bytes and as memory."""

    def __init__(self, size: int) -> None:
        self._left = 2 * size + SLACK

    def spend(self, count: int) -> None:
        """Subtracts from the budget. Raises ValueError if too little is left, or count < 0."""
        self._left -= count
        if count < 0 or self._left < 0:
            raise ValueError("describes more data than the file holds")


@dataclass(frozen=True)
class Call:
    """An allow-listed callable of a pickle: a function of ours, called with plain data."""

    function: Callable[..., Any]


class StandIn:
    """Inert replacement for a pickled object whose state arrives after it was made."""

    def build(self, state: Any) -> None:
        """Takes the state. Raises ValueError if it is of another form."""
        raise NotImplementedError


class Attributes(StandIn):
    """Replaces an object without weights such as argparse.Namespace; keeps its attributes."""

    def __init__(self) -> None:
        self.values: dict[Any, Any] = {}

    def build(self, state: Any) -> None:
        """Takes a dict of attributes."""
        if type(state) is not dict:
            raise ValueError(f"sets the state of a namespace to a {type(state).__name__}")
        self.values = state


class ArrayType(StandIn):
    """Replaces a numpy dtype of numbers."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not _ARRAY_CODE.fullmatch(code):
            raise ValueError(f"holds a numpy array of {shown(code)}, only numbers are read")
        self.dtype = np.dtype(code)

    def build(self, state: Any) -> None:
        """Takes (version, byte order, None, None, None, ...)."""
        order = state[1]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise ValueError("holds a numpy array of a composed type")
        self.dtype = self.dtype.newbyteorder(order)


class Array(StandIn):
    """Replaces a numpy array of numbers; `value` is set once its state has been read."""

    def __init__(self, *_: Any) -> None:
        self.value = np.zeros(0, np.float32)

    def build(self, state: Any) -> None:
        """Takes (version, shape, type, column order, bytes)."""
        _, shape, kind, columns, data = state
        self.value = _array(data, kind, shape, "F" if columns else "C")

    @functools.cached_property
    def tensor(self) -> Tensor:
        """The array as a tensor, copied once. Raises ValueError if it is one of texts."""
        if self.value.dtype.kind not in "fiub":
            raise ValueError("holds a numpy array of texts where numbers are due")
        return torch.from_numpy(self.value.astype(self.value.dtype.newbyteorder("=")))


@dataclass(frozen=True)
class Storage:
    """The memory of tensors."""

    data: Tensor  # [count], of its type; an untyped storage is of uint8


class _Operations(dict[int, Callable[[Any], None]]):
    """Pickle operations by code; one that plain weights never need is refused by name."""

    def __missing__(self, code: int) -> Callable[[Any], None]:
        names = {ord(operation.code): operation.name for operation in pickletools.opcodes}
        name = names.get(code, f"{code:#04x}")
        raise ValueError(f"uses the pickle operation {name}, which plain weights never need")


_PLAIN = (  # taken from the base class: they build plain data, in proportion to the file
    *(pickle.PROTO, pickle.STOP, pickle.MARK, pickle.POP, pickle.POP_MARK, pickle.NONE),
    *(pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1, pickle.BININT2),
    *(pickle.LONG1, pickle.BINFLOAT, pickle.SHORT_BINUNICODE, pickle.BINUNICODE),
    *(pickle.BINUNICODE8, pickle.SHORT_BINSTRING, pickle.BINSTRING, pickle.SHORT_BINBYTES),
    *(pickle.BINBYTES, pickle.BINBYTES8, pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1),
    *(pickle.TUPLE2, pickle.TUPLE3, pickle.EMPTY_LIST, pickle.EMPTY_DICT, pickle.EMPTY_SET),
    *(pickle.MEMOIZE, pickle.BINPUT, pickle.LONG_BINPUT, pickle.BINGET, pickle.LONG_BINGET),
    *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.BINPERSID),
)


class Unpickler(pickle._Unpickler):
    """Unpickles plain data; looks every global up in a table and refuses what is not in it."""

    def __init__(
        self,
        file: BinaryIO,
        *,
        size: int,  # of the file, in bytes
        names: Mapping[str, object],  # "module.name" -> a Call, or plain data
        storage: Callable[[Any], Storage] | None = None,  # of a persistent id; None refuses them
    ) -> None:
        super().__init__(_Source(file, size), encoding="latin-1")  # texts of Python 2 are bytes
        self.names, self.storage, self.met_unknown = names, storage, False

    def find_class(self, module: str, name: str) -> Any:
        """Returns the table's entry. Raises ValueError, and notes it, if the table has none."""
        full = f"{module}.{name}"
        if full not in self.names:
            raise self.refusal(full)
        return self.names[full]

    def refusal(self, full: str) -> ValueError:
        """Says that a name is not allowed and, where it is a class's, how to save without it."""
        hint = f"; {SAVE_STATE}" if full.rpartition(".")[2][:1].isupper() else ""
        self.met_unknown = True
        return ValueError(f"names {shown(full)}, which is not among what weights are made of{hint}")

    def persistent_load(self, pid: Any) -> Storage:
        """Returns the storage of an id. Raises ValueError if the file may have none."""
        if self.storage is None:
            raise ValueError("refers to objects outside of the file")
        return self.storage(pid)

    stack: list[Any]  # with the next two, of the base class
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]

    def _call(self) -> None:
        arguments, target = self.stack.pop(), self.stack.pop()
        if not isinstance(target, Call) or type(arguments) is not tuple:
            raise ValueError(f"calls a {type(target).__name__}")
        self.append(target.function(*arguments))

    def _build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, StandIn):
            target.build(state)
        elif type(target) is not dict:  # attributes of an OrderedDict (_metadata) are dropped
            raise ValueError(f"sets the state of a {type(target).__name__}")

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise ValueError(f"appends to a {type(target).__name__}")
        target.extend(items)

    def _update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise ValueError(f"sets items of a {type(target).__name__}")
        target.update(zip(checked_keys(items[::2]), items[1::2], strict=True))

    def _add(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not set:
            raise ValueError(f"adds items to a {type(target).__name__}")
        target.update(checked_keys(items))

    dispatch = _Operations({code[0]: pickle._Unpickler.dispatch[code[0]] for code in _PLAIN})
    dispatch |= {
        pickle.FRAME[0]: lambda self: self.read(8),
        pickle.BYTEARRAY8[0]: dispatch[pickle.BINBYTES8[0]],
        pickle.REDUCE[0]: _call,
        pickle.NEWOBJ[0]: _call,
        pickle.BUILD[0]: _build,
        pickle.APPEND[0]: lambda self: self._extend([self.stack.pop()]),
        pickle.APPENDS[0]: lambda self: self._extend(self.pop_mark()),
        pickle.SETITEM[0]: lambda self: self._update([self.stack.pop(-2), self.stack.pop()]),
        pickle.SETITEMS[0]: lambda self: self._update(self.pop_mark()),
        pickle.ADDITEMS[0]: lambda self: self._add(self.pop_mark()),
        pickle.FROZENSET[0]: lambda self: self.append(frozenset(checked_keys(self.pop_mark()))),
    }


class _Source:
    """A file that hands out no more bytes than it has, and no endless pickles."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.size, self.reads = file, size, 0

    def read(self, count: int) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS:
            raise ValueError(f"has a pickle of more than {MAX_READS} parts")
        if count > SLACK and count > self.size - self.file.tell():
            raise EOFError("the file ends early")
        data = self.file.read(count)
        if len(data) != count:
            raise EOFError("the file ends early")
        return data

    def readline(self) -> bytes:
        line = self.file.readline(MAX_NAME)
        if not line.endswith(b"\n"):
            raise ValueError("holds an overlong or cut name")
        return line


def checked_keys(keys: list[Any]) -> list[Any]:
    """Returns keys of a dict or items of a set that are cheap to hash and safe to print.

    Raises:
        ValueError: if one is no short printable text, None or moderate integer.
    """
    for key in keys:
        if not isinstance(key, str | int | None):
            raise ValueError(f"has a {type(key).__name__} as a key")
        if isinstance(key, int) and abs(key) >= MAX_KEY:
            raise ValueError("has a very large number as a key")
        if isinstance(key, str) and (len(key) > MAX_TEXT or not key.isprintable()):
            raise ValueError("has an overlong or unprintable text as a key")
    return keys


def allowed_names(budget: Budget) -> dict[str, object]:
    """Returns the allow-list of names in a pickle of weights; all else is refused."""
    names: dict[str, object] = {
        "collections.OrderedDict": Call(lambda *pairs: ordered_dict(budget, *pairs)),
        "argparse.Namespace": Call(Attributes),
        "torch.device": Call(_device),
        "torch.Size": Call(_integers),
        "torch.nn.parameter.Parameter": Call(_parameter),
        "torch._utils._rebuild_tensor": Call(rebuild_tensor),
        "torch._utils._rebuild_tensor_v2": Call(rebuild_tensor),
        "torch._utils._rebuild_tensor_v3": Call(_rebuild_untyped),
        "torch._utils._rebuild_parameter": Call(_parameter),
        "torch._utils._rebuild_parameter_with_state": Call(_parameter),
        "torch.storage.UntypedStorage": torch.uint8,
        "_codecs.encode": Call(lambda text, encoding: _encode(budget, text, encoding)),
        "numpy.dtype": Call(ArrayType),
        "numpy.ndarray": "ndarray",
    }
    for module in ("builtins", "__builtin__"):
        names[f"{module}.set"] = Call(lambda items=(): set(items_of(budget, items)))
        names[f"{module}.frozenset"] = Call(lambda items=(): frozenset(items_of(budget, items)))
    for name, dtype in _DTYPES.items():
        names[f"torch.{name}Storage"] = names[f"torch.cuda.{name}Storage"] = dtype
        names[str(dtype)] = dtype
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray._reconstruct"] = Call(Array)
        names[f"{core}.multiarray.scalar"] = Call(_scalar)
        names[f"{core}.numeric._frombuffer"] = Call(_from_buffer)
    return names


def rebuild_tensor(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any = False,
    hooks: Any = None,
    metadata: Any = None,
) -> Tensor:
    """Builds the tensor over a storage, without gradient.

    Raises:
        ValueError: if it reaches outside of its storage, repeats it many times, or is conjugated.
    """
    if not isinstance(storage, Storage) or metadata or hooks:
        raise ValueError("holds a tensor of another kind than plain numbers")
    sizes, strides, (start,) = _integers(size), _integers(stride), _integers((offset,))
    available, count = len(storage.data), math.prod(sizes)
    last = start + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    if (start > available) or (count and last >= available) or count > max(available, EXPANDED):
        raise ValueError(f"holds a tensor {sizes} that reaches outside of its {available} numbers")
    if not count:
        return torch.empty(sizes, dtype=storage.data.dtype)
    return storage.data.as_strided(sizes, strides, start)


def _rebuild_untyped(storage: Any, *given: Any) -> Tensor:
    offset, size, stride, _, hooks, dtype, *metadata = given
    if not isinstance(dtype, torch.dtype) or not isinstance(storage, Storage):
        raise ValueError(f"holds a tensor of {shown(dtype)}")
    whole = len(storage.data) // dtype.itemsize * dtype.itemsize
    typed = Storage(storage.data[:whole].view(dtype))
    return rebuild_tensor(typed, offset, size, stride, False, hooks, *metadata)


def _parameter(data: Any, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise ValueError(f"makes a parameter of a {type(data).__name__}")
    return data


def _integers(values: Any) -> tuple[int, ...]:
    if type(values) not in (tuple, list) or len(values) > MAX_AXES:
        raise ValueError("holds a tensor whose shape is no row of integers")
    if not all(type(value) is int and 0 <= value < 1 << 48 for value in values):
        listed = ", ".join(map(shown, values))[:80]
        raise ValueError(f"holds a tensor of sizes, strides or offset {listed}")
    return tuple(values)


def ordered_dict(budget: Budget, *given: Any) -> dict[Any, Any]:
    """Returns a dict, empty or of a list of pairs."""
    if len(given) > 1:
        raise ValueError(f"makes a dict of {len(given)} values")
    pairs = items_of(budget, given[0], keys=False) if given else []
    if not all(type(pair) in (tuple, list) and len(pair) == 2 for pair in pairs):
        raise ValueError("makes a dict of something else than pairs")
    return dict(zip(checked_keys([key for key, _ in pairs]), [v for _, v in pairs], strict=True))


def items_of(budget: Budget, given: Any, *, keys: bool = True) -> list[Any]:
    """Returns a list of what is gone through. Raises ValueError if it is no list, or too long."""
    if type(given) not in (tuple, list):
        raise ValueError(f"goes through a {type(given).__name__}")
    budget.spend(len(given))
    return checked_keys(list(given)) if keys else list(given)


def _device(kind: Any, index: Any = None) -> str:
    if not isinstance(kind, str) or not isinstance(index, int | None):
        raise ValueError("names a device by something else than text")
    return kind if index is None else f"{kind}:{index}"


def _encode(budget: Budget, text: Any, encoding: Any) -> bytes:
    """Returns the bytes that a pickle of protocol 2 holds as text."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError(f"encodes a {type(text).__name__} as {shown(encoding)}")
    budget.spend(len(text))
    return text.encode("latin-1")


def _array(data: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    sizes = _integers(shape)
    if not isinstance(data, bytes) or not isinstance(kind, ArrayType) or order not in ("C", "F"):
        raise ValueError("holds a numpy array of another form")
    if math.prod(sizes) * kind.dtype.itemsize != len(data):
        raise ValueError(f"holds a numpy array {sizes} of {len(data)} bytes")
    return np.frombuffer(data, kind.dtype).reshape(sizes, order=order)


def _scalar(kind: Any, data: Any) -> object:
    value: object = _array(data, kind, (), "C").item()
    return value


def _from_buffer(data: Any, kind: Any, shape: Any, order: Any) -> Array:
    array = Array()
    array.value = _array(data, kind, shape, order)
    return array
