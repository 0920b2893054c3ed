"""A pickle interpreter that builds plain data and nothing else.

Python's own unpickler imports what a file names and calls it. This one knows no import: a name in
the file is looked up in a table of stand-ins, and what is not in the table ends the reading. The
only objects it makes are numbers, texts, bytes, lists, tuples, dicts, sets, and what the functions
of the table return; nothing of the file ever reaches `__setstate__`, `__dict__` or `setattr` of a
real class. Operations that neither torch nor NVIDIA's training code writes (text protocol, INST,
OBJ, EXT, out-of-band buffers) are refused by name. Time and memory stay in proportion to the file.
"""

import pickle
import pickletools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

MAX_OPERATIONS = 1_000_000  # official files have some ten thousands
MAX_NAME = 512  # bytes of a dotted name
MAX_INTEGER = 1024  # bytes of an integer
MAX_KEY = 1 << 60  # larger integers can be chosen to collide in a dict
MAX_TEXT = 1024  # characters of a text that is a key
CHECKED = 1 << 16  # bytes; longer reads are compared with what is left of the file first

_OPERATION_NAMES = {code.code.encode("latin-1"): code.name for code in pickletools.opcodes}


@dataclass(frozen=True)
class Call:
    """What a name of the file may stand for: a function of ours, called with plain data."""

    function: Callable[..., Any]


class StandIn:
    """An object of the file that is filled after it was made; it keeps data and has no powers."""

    def build(self, state: Any) -> None:
        """Takes the state. Raises ValueError where it is of another form."""
        raise NotImplementedError


class Machine:
    """Reads one pickle from where the file stands; the file then stands behind it."""

    def __init__(
        self,
        file: BinaryIO,
        *,
        size: int,  # of the file, in bytes
        names: Mapping[str, object],  # "module.name" -> a Call, or plain data
        persistent: Callable[[Any], Any] | None = None,  # what a persistent id stands for
    ) -> None:
        self._file, self._size = file, size
        self._names, self._persistent = names, persistent
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The object.

        Raises:
            ValueError: the file asks for more than data, with what it asked for.
            IndexError, KeyError, TypeError, struct.error, EOFError, OverflowError: it is damaged.
        """
        for _ in range(MAX_OPERATIONS):
            code = self._read(1)
            if code == pickle.STOP:
                return self._stack.pop()
            operation = _OPERATIONS.get(code)
            if operation is None:
                name = _OPERATION_NAMES.get(code, f"{code[0]:#04x}")
                raise ValueError(
                    f"uses the pickle operation {name}, which plain weights never need"
                )
            operation(self)
        raise ValueError(f"has more than {MAX_OPERATIONS} pickle operations")

    def _read(self, count: int) -> bytes:
        if count > CHECKED and count > self._size - self._file.tell():
            raise EOFError("the file ends early")
        data = self._file.read(count)
        if len(data) != count:
            raise EOFError("the file ends early")
        return data

    def _number(self, form: str) -> int:
        return int(struct.unpack(form, self._read(struct.calcsize(form)))[0])

    def _marked(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _bytes(self, form: str) -> None:
        self._push(self._read(self._number(form)))

    def _text(self, form: str) -> None:
        self._push(self._read(self._number(form)).decode("utf-8", "surrogatepass"))

    def _string(self, form: str) -> None:  # of Python 2
        self._push(self._read(self._number(form)).decode("latin-1"))

    def _integer(self, form: str) -> None:
        count = self._number(form)
        if not 0 <= count <= MAX_INTEGER:
            raise ValueError(f"holds an integer of {count} bytes")
        self._push(int.from_bytes(self._read(count), "little", signed=True))

    def _mark(self) -> None:
        self._marks.append(len(self._stack))

    def _tuple(self, count: int) -> None:
        if len(self._stack) < count:
            raise IndexError("the stack is empty")
        items = tuple(self._stack[-count:])
        del self._stack[-count:]
        self._push(items)

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise ValueError(f"appends to a {type(target).__name__}")
        target.extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise ValueError(f"sets items of a {type(target).__name__}")
        target.update(zip(checked_keys(items[::2]), items[1::2], strict=True))

    def _add(self) -> None:
        items, target = self._marked(), self._stack[-1]
        if type(target) is not set:
            raise ValueError(f"adds items to a {type(target).__name__}")
        target.update(checked_keys(items))

    def _memoize(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _global(self) -> None:
        lines = [self._file.readline(MAX_NAME) for _ in range(2)]
        if not all(line.endswith(b"\n") for line in lines):
            raise ValueError("holds an overlong or cut name")
        self._look_up(*(line[:-1].decode("utf-8") for line in lines))

    def _stack_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("names an object by something else than text")
        self._look_up(module, name)

    def _look_up(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if full not in self._names:
            raise ValueError(f"names {full[:80]!r}, which is not among what weights are made of")
        self._push(self._names[full])

    def _call(self) -> None:
        arguments, target = self._stack.pop(), self._stack.pop()
        if not isinstance(target, Call) or type(arguments) is not tuple:
            raise ValueError(f"calls a {type(target).__name__}")
        self._push(target.function(*arguments))

    def _build(self) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, StandIn):
            target.build(state)
        elif type(target) is not dict:  # attributes of an OrderedDict (_metadata) are dropped
            raise ValueError(f"sets the state of a {type(target).__name__}")

    def _persistent_id(self) -> None:
        if self._persistent is None:
            raise ValueError("refers to objects outside of the file")
        self._push(self._persistent(self._stack.pop()))


def checked_keys(keys: list[Any]) -> list[Any]:
    """Keys of a dict or items of a set that are cheap to hash and safe to print.

    Raises:
        ValueError: one is no short printable text, None or moderate integer.
    """
    for key in keys:
        if not isinstance(key, str | int | None):
            raise ValueError(f"has a {type(key).__name__} as a key")
        if isinstance(key, int) and abs(key) >= MAX_KEY:
            raise ValueError("has a very large number as a key")
        if isinstance(key, str) and (len(key) > MAX_TEXT or not key.isprintable()):
            raise ValueError("has an overlong or unprintable text as a key")
    return keys


_OPERATIONS: dict[bytes, Callable[[Machine], object]] = {
    pickle.PROTO: lambda m: m._read(1),
    pickle.FRAME: lambda m: m._read(8),
    pickle.POP: lambda m: m._stack.pop(),
    pickle.POP_MARK: lambda m: m._marked(),
    pickle.MARK: Machine._mark,
    pickle.NONE: lambda m: m._push(None),
    pickle.NEWTRUE: lambda m: m._push(True),
    pickle.NEWFALSE: lambda m: m._push(False),
    pickle.BININT: lambda m: m._push(m._number("<i")),
    pickle.BININT1: lambda m: m._push(m._number("<B")),
    pickle.BININT2: lambda m: m._push(m._number("<H")),
    pickle.LONG1: lambda m: m._integer("<B"),
    pickle.LONG4: lambda m: m._integer("<i"),
    pickle.BINFLOAT: lambda m: m._push(struct.unpack(">d", m._read(8))[0]),
    pickle.SHORT_BINUNICODE: lambda m: m._text("<B"),
    pickle.BINUNICODE: lambda m: m._text("<I"),
    pickle.BINUNICODE8: lambda m: m._text("<Q"),
    pickle.SHORT_BINSTRING: lambda m: m._string("<B"),
    pickle.BINSTRING: lambda m: m._string("<I"),
    pickle.SHORT_BINBYTES: lambda m: m._bytes("<B"),
    pickle.BINBYTES: lambda m: m._bytes("<I"),
    pickle.BINBYTES8: lambda m: m._bytes("<Q"),
    pickle.BYTEARRAY8: lambda m: m._bytes("<Q"),
    pickle.EMPTY_TUPLE: lambda m: m._push(()),
    pickle.TUPLE1: lambda m: m._tuple(1),
    pickle.TUPLE2: lambda m: m._tuple(2),
    pickle.TUPLE3: lambda m: m._tuple(3),
    pickle.TUPLE: lambda m: m._push(tuple(m._marked())),
    pickle.EMPTY_LIST: lambda m: m._push([]),
    pickle.APPEND: lambda m: m._append([m._stack.pop()]),
    pickle.APPENDS: lambda m: m._append(m._marked()),
    pickle.EMPTY_DICT: lambda m: m._push({}),
    pickle.SETITEM: lambda m: m._set([m._stack.pop(-2), m._stack.pop()]),
    pickle.SETITEMS: lambda m: m._set(m._marked()),
    pickle.EMPTY_SET: lambda m: m._push(set()),
    pickle.ADDITEMS: Machine._add,
    pickle.FROZENSET: lambda m: m._push(frozenset(checked_keys(m._marked()))),
    pickle.MEMOIZE: lambda m: m._memoize(len(m._memo)),
    pickle.BINPUT: lambda m: m._memoize(m._number("<B")),
    pickle.LONG_BINPUT: lambda m: m._memoize(m._number("<I")),
    pickle.BINGET: lambda m: m._push(m._memo[m._number("<B")]),
    pickle.LONG_BINGET: lambda m: m._push(m._memo[m._number("<I")]),
    pickle.GLOBAL: Machine._global,
    pickle.STACK_GLOBAL: Machine._stack_global,
    pickle.REDUCE: Machine._call,
    pickle.NEWOBJ: Machine._call,
    pickle.BUILD: Machine._build,
    pickle.BINPERSID: Machine._persistent_id,
}
