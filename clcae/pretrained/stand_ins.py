"""What the names in a pickle of weights stand for: functions of ours, plain data to plain data.

Tensors and arrays are rebuilt by code that compares every size, stride and offset with the bytes
there are; torch's and numpy's own rebuild functions are never called on what a file says. Objects
that carry no weights (torch.device, argparse.Namespace, dnnlib.EasyDict) come back as text and
dicts. Deviation from torch.load: sparse, quantized and complex tensors are refused.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clcae.pretrained.machine import Call, StandIn, checked_keys

MAX_AXES = 16
EXPANDED = 1 << 16  # a tensor that repeats its storage (stride 0) has at most so many elements
SLACK = 1 << 20  # bytes; what may be made of a small file beyond its own size
_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}
_ARRAY_CODES = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}


class Budget:
    """How many bytes may be made of a file: twice as many as it has, as bytes and as memory."""

    def __init__(self, size: int) -> None:
        self._left = 2 * size + SLACK

    def spend(self, count: int) -> None:
        """Takes so many. Raises ValueError when none are left, or for a negative count."""
        self._left -= count
        if count < 0 or self._left < 0:
            raise ValueError("describes more data than the file holds")


class StorageType:
    """A storage class such as torch.FloatStorage; None is the untyped one, counted in bytes."""

    def __init__(self, dtype: torch.dtype | None) -> None:
        self.dtype = dtype


class Storage:
    """The memory of tensors."""

    def __init__(self, dtype: torch.dtype | None, data: Tensor) -> None:
        self.dtype = dtype
        self.data = data  # [bytes], uint8


class Attributes(StandIn):
    """An object that holds no weights, argparse.Namespace: its attributes as a dict."""

    def __init__(self) -> None:
        self.values: dict[Any, Any] = {}

    def build(self, state: Any) -> None:
        """Takes a dict of attributes."""
        if type(state) is not dict:
            raise ValueError(f"sets the state of a namespace to a {type(state).__name__}")
        self.values = state


class ArrayType(StandIn):
    """A numpy dtype of numbers."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or code not in _ARRAY_CODES:
            raise ValueError(f"holds a numpy array of {str(code)[:20]!r}, only numbers are read")
        self.dtype = np.dtype(code)

    def build(self, state: Any) -> None:
        """Takes (version, byte order, None, None, None, ...)."""
        order = state[1]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise ValueError("holds a numpy array of a composed type")
        self.dtype = self.dtype.newbyteorder(order)


class Array(StandIn):
    """A numpy array of numbers; `value` is there once its state has been read."""

    def __init__(self, *_: Any) -> None:
        self.value = np.zeros(0, np.float32)

    def build(self, state: Any) -> None:
        """Takes (version, shape, type, column order, bytes)."""
        _, shape, kind, columns, data = state
        self.value = _array(data, kind, shape, "F" if columns else "C")


def names(budget: Budget) -> dict[str, object]:
    """The table for the weights of torch; `budget` bounds what is made beyond the file's bytes."""
    table: dict[str, object] = {
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
        "torch.storage.UntypedStorage": StorageType(None),
        "_codecs.encode": Call(lambda text, encoding: _encode(budget, text, encoding)),
        "numpy.dtype": Call(ArrayType),
        "numpy.ndarray": "ndarray",
    }
    for module in ("builtins", "__builtin__"):
        table[f"{module}.set"] = Call(lambda items=(): set(_items(budget, items)))
        table[f"{module}.frozenset"] = Call(lambda items=(): frozenset(_items(budget, items)))
    for name, dtype in _STORAGES.items():
        table[f"torch.{name}Storage"] = StorageType(dtype)
        table[f"torch.cuda.{name}Storage"] = StorageType(dtype)
        table[str(dtype)] = dtype
    for core in ("numpy.core", "numpy._core"):
        table[f"{core}.multiarray._reconstruct"] = Call(Array)
        table[f"{core}.multiarray.scalar"] = Call(_scalar)
        table[f"{core}.numeric._frombuffer"] = Call(_from_buffer)
    return table


def rebuild_tensor(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any = False,
    hooks: Any = None,
    metadata: Any = None,
    *,
    dtype: torch.dtype | None = None,  # of an untyped storage
) -> Tensor:
    """The tensor over a storage, without gradient.

    Raises:
        ValueError: it reaches outside of its storage, repeats it many times, or is conjugated.
    """
    if not isinstance(storage, Storage) or metadata or hooks:
        raise ValueError("holds a tensor of another kind than plain numbers")
    sizes, strides = _integers(size), _integers(stride)
    (start,) = _integers((offset,))
    kind = dtype or storage.dtype or torch.uint8
    available = len(storage.data) // kind.itemsize
    count = math.prod(sizes)
    last = start + sum((n - 1) * step for n, step in zip(sizes, strides, strict=True))
    if (start > available) or (count and last >= available) or count > max(available, EXPANDED):
        raise ValueError(f"holds a tensor {sizes} that reaches outside of its {available} numbers")
    if not count:
        return torch.empty(sizes, dtype=kind)
    flat = storage.data[: available * kind.itemsize].view(kind)
    return flat.as_strided(sizes, strides, start)


def _rebuild_untyped(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any,
    hooks: Any,
    dtype: Any,
    metadata: Any = None,
) -> Tensor:
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"holds a tensor of {str(dtype)[:20]!r}")
    return rebuild_tensor(storage, offset, size, stride, False, hooks, metadata, dtype=dtype)


def _parameter(data: Any, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise ValueError(f"makes a parameter of a {type(data).__name__}")
    return data


def _integers(values: Any) -> tuple[int, ...]:
    if type(values) not in (tuple, list) or len(values) > MAX_AXES:
        raise ValueError("holds a tensor whose shape is no row of integers")
    if not all(type(value) is int and 0 <= value < 1 << 48 for value in values):
        raise ValueError(f"holds a tensor of sizes, strides or offset {str(values)[:80]}")
    return tuple(values)


def ordered_dict(budget: Budget, *given: Any) -> dict[Any, Any]:
    """A dict, empty or of a list of pairs."""
    if len(given) > 1:
        raise ValueError(f"makes a dict of {len(given)} values")
    pairs = _items(budget, given[0], keys=False) if given else []
    if not all(type(pair) in (tuple, list) and len(pair) == 2 for pair in pairs):
        raise ValueError("makes a dict of something else than pairs")
    return dict(zip(checked_keys([key for key, _ in pairs]), [v for _, v in pairs], strict=True))


def _items(budget: Budget, given: Any, *, keys: bool = True) -> list[Any]:
    if type(given) not in (tuple, list):
        raise ValueError(f"goes through a {type(given).__name__}")
    budget.spend(len(given))
    return checked_keys(list(given)) if keys else list(given)


def _device(kind: Any, index: Any = None) -> str:
    if not isinstance(kind, str) or not isinstance(index, int | None):
        raise ValueError("names a device by something else than text")
    return kind if index is None else f"{kind}:{index}"


def _encode(budget: Budget, text: Any, encoding: Any) -> bytes:
    """How pickles of protocol 2 hold bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError(f"encodes a {type(text).__name__} as {str(encoding)[:20]!r}")
    budget.spend(len(text))
    return text.encode("latin-1")


def _array(data: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    sizes = _integers(shape)
    if not isinstance(data, bytes) or not isinstance(kind, ArrayType) or order not in ("C", "F"):
        raise ValueError("holds a numpy array of another form")
    if math.prod(sizes) * kind.dtype.itemsize != len(data):
        raise ValueError(f"holds a numpy array {sizes} of {len(data)} bytes")
    return np.frombuffer(data, kind.dtype).reshape(sizes, order=order)


def _from_buffer(data: Any, kind: Any, shape: Any, order: Any) -> Array:
    array = Array()
    array.value = _array(data, kind, shape, order)
    return array


def _scalar(kind: Any, data: Any) -> int | float | bool:
    value: int | float | bool = _array(data, kind, (), "C").item()
    return value
