"""Reads files of torch.save: the zip archive of today, and the stream of before torch 1.6.

The pickle inside goes through `clcae.unpickling.unpickler`; the memory of the tensors is read here,
against its declared size and, in an archive, its checksum. Deviations from torch.load: everything
comes to the CPU; sparse, quantized and complex tensors, the tar files of before torch 0.1.10 and
TorchScript archives are refused.
"""

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import torch
from torch import Tensor

from clcae.quoting import one_line, shown
from clcae.unpickling.modules import ModuleUnpickler, with_state_dicts
from clcae.unpickling.unpickler import (
    Attributes,
    Budget,
    Call,
    Storage,
    Unpickler,
    allowed_names,
    items_of,
    ordered_dict,
)

# Names that lie beside weights: paths, counters, dates, options. Each becomes plain data: a path
# its text, a defaultdict a dict, options their attributes; a class that is only named, a text.
_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
_TYPES = (
    *("int", "float", "complex", "bool", "str", "bytes", "list", "tuple", "dict", "object"),
    *("long", "unicode"),  # by their names in Python 2, which protocol 2 writes
)
_TYPES_OF_TYPING = ("Any", "Dict", "List", "Tuple", "Optional", "Union")
_DATES = ("datetime", "date", "time", "timedelta", "timezone")
_OPTIONS = (  # objects that are their attributes
    *("types.SimpleNamespace", "omegaconf.dictconfig.DictConfig"),
    *("omegaconf.listconfig.ListConfig", "omegaconf.base.ContainerMetadata"),
    *("omegaconf.base.Metadata", "omegaconf.base.SCMode"),
    *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "String", "Integer", "Float", "Boolean")),
)
_STAGE = "models.encoders.psp_encoders.ProgressiveStage"  # which an encoder of e4e holds
_ACTIVATIONS = ("relu", "leaky_relu", "glu")  # functions that modules refer to
_DICTS = ("easydict.EasyDict", "munch.Munch", "addict.addict.Dict", "yacs.config.CfgNode")
MAX_PICKLE = 1 << 28  # bytes of the pickle within an archive
MAX_ENTRIES = 1 << 17
_CHUNK = 1 << 20
_SUFFIXES = (".pt", ".pth", ".pkl", ".tar", ".ckpt", ".safetensors")
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # with which torch.save began
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, pickle.UnpicklingError, struct.error, UnicodeError),
    *(OSError, EOFError, LookupError, TypeError, AttributeError, OverflowError),
    *(RuntimeError, MemoryError),
)
_TELLTALES = {  # first bytes of what is often taken for a checkpoint
    b"\x1f\x8b": "is compressed with gzip; run gunzip first",
    b"<": "is a web page; the download went wrong, repeat it",
    b"version https://git-lfs": "is a git-lfs pointer; run git lfs pull",
    b"\x89HDF": "is an HDF5 file, expected one of PyTorch",
    b"": "is no file of PyTorch",
}


@contextmanager
def reading(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a stranger's file; whatever goes wrong becomes one line that names it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is a folder, empty, damaged, or holds what is not read.
    """
    path = Path(path)
    if path.is_dir():
        unpacked = " (it holds an unpacked file of torch.save)" * (path / "data.pkl").is_file()
        native = sorted(path.glob("*.safetensors"))  # as in a run folder
        such = f", such as {native[0]}" if native else ""
        raise ValueError(f"{path} is a folder, expected a file{such}{unpacked}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty; the download went wrong, repeat it")
    try:
        with path.open("rb") as file:
            yield file
    except _DAMAGE as error:
        reason = one_line(f"{type(error).__name__}: {error}", 200)
        raise ValueError(
            f"{path} is damaged or cut short ({reason}); get the file again"
        ) from error
    except ValueError as error:
        raise ValueError(f"{path} {one_line(error)}") from error


def peek(file: BinaryIO) -> bytes:
    """Returns the first bytes of a file and stays at its beginning."""
    start = file.read(64)
    file.seek(0)
    return start


def is_other_pickle(start: bytes) -> bool:
    """Returns whether a file begins as a pickle, but not as one of torch.save: NVIDIA's."""
    return start[:1] == pickle.PROTO and MAGIC.to_bytes(10, "little") not in start


def refusal(start: bytes) -> str:
    """Says what a file with these first bytes is, where it is no checkpoint."""
    if start[7:9] == b"\0{":
        return "is a native file already: load it with clcae.load_method or clcae.load_generator"
    return next(words for sign, words in _TELLTALES.items() if start.lstrip().startswith(sign))


def read_torch_file(path: str | Path) -> Any:
    """Reads what torch.save wrote: tensors on the CPU within dicts, lists, numbers and texts.

    Objects without weights come as data: torch.device as "cuda:0", argparse.Namespace as
    Attributes. A whole module, or one that is a value of the file's dict, comes as a ModuleState:
    its state dict, read without its class.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is none of torch's, is damaged, or asks for anything but data; one line.
    """
    with reading(path) as file:
        start, size = peek(file), Path(path).stat().st_size
        if start.startswith(b"PK\x03\x04"):
            return _read_archive(file, size)
        if start[:1] == pickle.PROTO:
            return read_stream(file, size)
        raise ValueError(refusal(start))


class _Storages(dict[str, Storage]):
    """The storages of a file by key, allocated when a tensor first refers to one."""

    def __init__(self, budget: Budget, fill: Callable[[str, Tensor], object]) -> None:
        super().__init__()
        self.budget, self.fill = budget, fill

    def of(self, given: Any) -> Storage:
        """Returns the storage of a persistent id ("storage", type, key, place, count[, None])."""
        if type(given) is not tuple or len(given) not in (5, 6) or given[0] != "storage":
            raise ValueError("refers to something else than storages")
        _, dtype, key, _, count, *view = given
        if any(part is not None for part in view):
            raise ValueError("holds views of storages, which torch no longer writes")
        if not isinstance(dtype, torch.dtype) or type(key) is not str or type(count) is not int:
            raise ValueError("refers to a storage of another form")
        if key not in self:
            self.budget.spend(count * dtype.itemsize)
            self[key] = Storage(torch.empty(count, dtype=dtype))
            self.fill(key, self[key].data)
        return self[key]


def read_stream(file: BinaryIO, size: int) -> Any:
    """Reads the format of before torch 1.6: pickles, then the storages one after another.

    Raises ValueError as `read_torch_file`, and the errors of damage that `reading` words.
    """
    budget = Budget(size)
    storages = _Storages(budget, lambda key, data: None)

    def unpickled() -> Any:
        return Unpickler(file, size=size, names={}).load()

    magic, protocol, info = unpickled(), unpickled(), unpickled()
    if magic != MAGIC or protocol != PROTOCOL:
        raise ValueError("is a pickle, but none of torch.save")
    if not isinstance(info, dict) or not info.get("little_endian", True):
        raise ValueError("was written on a big-endian machine")
    names = all_names(budget)
    finish, content = _content(file, size=size, names=names, storage=storages.of)
    keys = unpickled()
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise ValueError("lists storages by something else than text")
    if sorted(keys) != sorted(storages):
        raise ValueError("lists other storages than its tensors have")
    for key in keys:
        data = storages[key].data
        (count,) = struct.unpack("<q", file.read(8))
        if count != len(data):
            raise ValueError(f"holds {count} numbers where {len(data)} are due")
        _fill(data, file)
    return finish(content, budget)


def _content(
    file: BinaryIO,
    *,
    size: int,
    names: Mapping[str, object],
    storage: Callable[[Any], Storage],
) -> tuple[Callable[[Any, Budget], Any], Any]:
    """Unpickles plain data or, on a second reading, what holds whole modules.

    Returns:
        What is to be done with the content once its storages are filled, and the content.
    """
    start = file.tell()
    plainly = Unpickler(file, size=size, names=names, storage=storage)
    try:
        content = plainly.load()
    except ValueError:
        if not plainly.met_unknown:
            raise
        file.seek(start)
        content = ModuleUnpickler(file, size=size, names=names, storage=storage).load()
        return with_state_dicts, content
    return lambda plain, _: plain, content


def _read_archive(file: BinaryIO, size: int) -> Any:
    with zipfile.ZipFile(file) as archive:
        entries = _entries(archive, size)
        folder = next((name[: -len("data.pkl")] for name in entries if _is_main(name)), None)
        if folder is None:
            raise ValueError(_other_archive(list(entries)))
        if f"{folder}constants.pkl" in entries:
            raise ValueError("is a TorchScript archive, expected a state dict")
        order = entries.get(f"{folder}byteorder")
        if order is not None and order.file_size < 16 and archive.read(order) == b"big":
            raise ValueError("was written on a big-endian machine")
        main = entries[f"{folder}data.pkl"]
        if main.file_size > MAX_PICKLE:
            raise ValueError(f"has a pickle of {main.file_size} bytes")

        def fill(key: str, data: Tensor) -> None:
            entry = entries[f"{folder}data/{key}"]
            if entry.file_size != data.nbytes:
                raise ValueError(f"holds {entry.file_size} bytes for {len(data)} numbers")
            with archive.open(entry) as source:  # which compares the checksum at the end
                _fill(data, source)

        budget, pickled = Budget(size), archive.read(main)
        storage, names = _Storages(budget, fill).of, all_names(budget)
        finish, content = _content(
            io.BytesIO(pickled), size=len(pickled), names=names, storage=storage
        )
        return finish(content, budget)


def _is_main(name: str) -> bool:
    return PurePosixPath(name).name == "data.pkl" and len(PurePosixPath(name).parts) == 2


def _other_archive(names: list[str]) -> str:
    """Says what a zip archive without a folder of data.pkl is."""
    if "data.pkl" in names:
        return (
            "is a zip archive without the folder that torch.save puts everything into (data.pkl "
            "lies at its top): it was unpacked and packed again; pack the folder itself, or get "
            "the file again"
        )
    deeper = next((name for name in names if PurePosixPath(name).name == "data.pkl"), None)
    if deeper is not None:
        folder = PurePosixPath(deeper).parent
        return f"is a zip archive that holds an unpacked file of torch.save in {shown(str(folder))}"
    held = [name for name in names if PurePosixPath(name).suffix in _SUFFIXES]
    if held:
        return f"is a zip archive that holds {shown(held[0])}: unpack it first"
    return "is a zip archive, but none of torch.save"


def _entries(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Returns the entries by name, all of them plain: uncompressed, inside the archive, once."""
    entries: dict[str, zipfile.ZipInfo] = {}
    if len(archive.infolist()) > MAX_ENTRIES:
        raise ValueError(f"has {len(archive.infolist())} entries")
    for entry in archive.infolist():
        name = entry.filename
        if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
            raise ValueError(f"has an entry that leads outside: {shown(name)}")
        if name in entries:
            raise ValueError(f"has the entry {shown(name)} twice")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise ValueError(f"has a compressed or encrypted entry, {shown(name)}; torch has none")
        entries[name] = entry
    if sum(entry.file_size for entry in entries.values()) > size:
        raise ValueError("has entries larger than the file itself")
    return entries


def _fill(data: Tensor, source: Any) -> None:
    """Reads exactly the bytes of a tensor, a piece at a time."""
    view = data.view(torch.uint8).numpy().data
    for first in range(0, len(view), _CHUNK):
        piece = view[first : first + _CHUNK]
        read = source.read(len(piece))
        if len(read) != len(piece):
            raise EOFError("the file ends early")
        piece[:] = read


def all_names(budget: Budget) -> dict[str, object]:
    """Returns the allow-list of weights and of what lies beside them."""
    pairs = Call(lambda *given: ordered_dict(budget, *given))
    names: dict[str, object] = {
        "collections.defaultdict": Call(lambda _=None, *given: ordered_dict(budget, *given)),
        "collections.Counter": Call(_counts),
        "collections.deque": Call(lambda given=(), _=None: items_of(budget, given, keys=False)),
        **dict.fromkeys(_OPTIONS, Call(Attributes)),
        **dict.fromkeys(_DICTS, pairs),
    }
    for module in ("pathlib", "pathlib._local"):
        names |= dict.fromkeys((f"{module}.{kind}" for kind in _PATHS), Call(_path))
    for module in ("builtins", "__builtin__"):
        names |= {f"{module}.{kind}": kind for kind in _TYPES}
    names |= {f"torch.nn.functional.{name}": name for name in _ACTIVATIONS}
    names[_STAGE] = Call(_named("a stage"))
    names |= {f"typing.{kind}": kind for kind in _TYPES_OF_TYPING}
    for kind in _DATES:
        names[f"datetime.{kind}"] = Call(_named(f"a {kind}"))
    return names | allowed_names(budget)


def _named(text: str) -> Callable[..., str]:
    return lambda *_: text


def _path(*parts: Any) -> str:
    if not all(isinstance(part, str) for part in parts):
        raise ValueError("holds a path of something else than text")
    return "/".join(parts)


def _counts(*given: Any) -> dict[Any, Any]:
    if len(given) > 1 or not all(type(part) is dict for part in given):
        raise ValueError("holds a counter of another form")
    return dict(*given)
