"""The native checkpoint: safetensors weights, and a JSON description of what they belong to.

A file says which registered class it holds, the settings that class is built from, where the
weights come from, and their sha256. Loading builds the class by its registered name and fills it
strictly; nothing in a file is ever executed or imported.

    @register("stylegan2_generator")
    class Generator(nn.Module):
        def __init__(self, *, resolution: int, w_dim: int) -> None:
            super().__init__()

`@register` records the arguments of the constructor, defaults included, as `settings`, as PyTorch
Lightning's save_hyperparameters does. A setting may be a module of a registered class itself (a
method that holds a generator): it is described within the description of its holder, and built
first; or it lies in a file of its own in the same folder, whose name and digest are written instead
(`beside`), so that methods of one generator need not repeat it.
"""

import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn

from clcae.construction import check_finite, check_sizes, check_types, without_weights
from clcae.quoting import one_line, parse_json, shown
from clcae.weight_file import (
    check_fit,
    digest_of,
    opened,
    read_header,
    read_weights,
    write_weights,
)

FORMAT_VERSION = 1
_METADATA_KEY = "clcae"
_FIELDS = ("class", "settings", "provenance", "sha256", "dtype", "format_version")
_DIGEST = "description_sha256"
_CLASS_KEY = "$class"
_DESCRIPTION_KEYS = {_CLASS_KEY, "settings"}
_REFERENCE_KEYS = ({"$file", "sha256"}, {"$file", "sha256", _DIGEST})
_FAULTS = (  # of a constructor that is given the settings of a damaged file
    *(ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError),
    *(RuntimeError, TypeError, ValueError),
)
_registry: dict[str, type[nn.Module]] = {}

ModuleType = TypeVar("ModuleType", bound=nn.Module)


@dataclass(frozen=True)
class Metadata:
    """Description of a native file, in the order of `_FIELDS`.

    Args:
        class_name: registered name of the class.
        settings: what the class is built from, modules within it as nested descriptions.
        provenance: where the weights come from: command, data, commit, published figures.
        sha256: digest of names, types, shapes and bytes of all weights.
        dtype: type of the floating-point weights in the file: "native", or "float16" where they
            were halved to save space.
        format_version: version of the layout of the file.
        digest: of class, settings and `sha256`: of all that decides what is computed; None in files
            that were written without it.
    """

    class_name: str
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]
    sha256: str
    dtype: str
    format_version: int
    digest: str | None = None


def register(
    name: str, *, resolve: Callable[..., dict[str, Any]] = dict
) -> Callable[[type[ModuleType]], type[ModuleType]]:
    """Makes a class loadable by name and records its constructor's arguments in `settings`.

    Args:
        name: name written into files; it outlives any renaming of the class.
        resolve: turns the arguments, given by keyword, into those that a file should hold where
            several spell the same module, such as channel counts and the rule that gives them.

    Returns:
        A class decorator that returns the class.

    Raises:
        ValueError: if another class has the name already.
    """

    def add(cls: type[ModuleType]) -> type[ModuleType]:
        known = _registry.get(name, cls)
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"name {name!r} is taken by {known.__module__}.{known.__qualname__}")
        _registry[name] = cls
        _record_settings(cls, resolve)
        return cls

    return add


def _record_settings(cls: type[nn.Module], resolve: Callable[..., dict[str, Any]]) -> None:
    construct = cls.__init__
    signature = inspect.signature(construct)

    @functools.wraps(construct)
    def recording(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        construct(self, *args, **kwargs)
        if type(self) is cls:
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            _, *arguments = bound.arguments.items()
            self.settings = _plain(resolve(**dict(arguments)))

    cls.__init__ = recording  # type: ignore[method-assign]


def _plain(value: Any) -> Any:
    """Turns sequences and mappings of any type into lists and dicts."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(part) for part in value]
    return value


def save(
    module: nn.Module,
    path: str | Path,
    *,
    provenance: Mapping[str, Any],
    half: bool = False,
    beside: Mapping[str, str] | None = None,
) -> None:
    """Writes a module as a native file, complete or not at all.

    Args:
        module: module of a registered class.
        path: the file, customarily `.safetensors`.
        provenance: where the weights come from; anything JSON can hold.
        half: write floating-point weights as float16, half the size; they are loaded as float32.
        beside: setting that is a module -> name of the native file in the same folder that holds
            exactly this module; it is read from there. None writes everything.

    Raises:
        FileNotFoundError: if there is no such file beside it.
        ValueError: if the class is not registered, if settings or provenance do not fit JSON, if
            a weight is too large for float16, or if a file beside it holds something else.
    """
    description = _describe(module)
    left_out = set[str]()
    for name, file in (beside or {}).items():
        source = Path(path).parent / file
        left_out |= _same_weights(module, name, source)
        held = read_metadata(source)
        reference = {"$file": file, "sha256": held.sha256}
        if held.digest is not None:
            reference[_DIGEST] = held.digest
        description["settings"][name] = reference
    weights = {}
    for key, value in module.state_dict().items():
        if key in left_out:
            continue
        if not isinstance(value, Tensor):
            raise ValueError(f"{key} of {description[_CLASS_KEY]} is no tensor and cannot be saved")
        # A copy, because safetensors refuses weights that share memory.
        weights[key] = _halved(key, value) if half else value.detach().cpu().clone().contiguous()
    try:
        check_finite(weights)
    except ValueError as error:
        raise ValueError(f"{description[_CLASS_KEY]} is not saved: {error}") from error
    fields = {
        "format_version": FORMAT_VERSION,
        "class": description[_CLASS_KEY],
        "settings": description["settings"],
        "provenance": dict(provenance),
        "dtype": "float16" if half else "native",
        "sha256": digest_of(weights),
    }
    try:
        text = json.dumps({**fields, _DIGEST: _description_digest(fields)}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"settings or provenance do not fit JSON: {error}") from error
    write_weights(path, weights, {_METADATA_KEY: text})


@overload
def load(path: str | Path, *, expected: type[ModuleType]) -> ModuleType: ...
@overload
def load(path: str | Path, *, expected: None = None) -> nn.Module: ...
def load(path: str | Path, *, expected: type[nn.Module] | None = None) -> nn.Module:
    """Builds the module of a native file, with its weights, on the CPU and in evaluation mode.

    No more memory is taken than the weights need: parameters are never initialised, and tensors
    are read one after another, with the types of the constructor. The random state of the caller
    is left as it was.

    Args:
        path: the file.
        expected: class the module must be of; None accepts every registered one.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or of another format, if its class is unknown or not
            the expected one, or if weights are missing, unexpected or of another shape.
    """
    metadata = read_metadata(path)
    cls = _registered(metadata.class_name, path)
    if expected is not None and not issubclass(cls, expected):
        raise ValueError(
            f"{path}: holds {metadata.class_name!r} ({cls.__name__}), expected {expected.__name__}"
        )
    entries, start = read_header(path)
    settings, given = _with_references(metadata.settings, path)
    try:
        check_sizes(metadata.settings)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    description = {_CLASS_KEY: metadata.class_name, "settings": settings}
    sizes = [entry.shape.numel() for entry in entries.values()]
    with torch.random.fork_rng(devices=[]):
        module = without_weights(lambda: _build(description, path), sizes=sizes)
    own = {key: value for key, value in module.state_dict().items() if key not in given}
    check_fit(type(module).__name__, own, entries, path)
    dtypes = {key: value.dtype for key, value in own.items()}
    weights, digest = read_weights(path, entries, start, dtypes)
    if digest != metadata.sha256:
        raise ValueError(f"{path}: weights do not match their sha256; the file is damaged")
    try:
        check_finite(weights)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    module.load_state_dict(weights | given, strict=True, assign=True)
    return module.eval()


def is_native(path: str | Path) -> bool:
    """Returns whether a file is a safetensors one, by its name or first bytes; False if missing."""
    path = Path(path)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(9)
    return path.suffix == ".safetensors" or (start[8:] == b"{" and start[7:8] == b"\0")


def read_metadata(path: str | Path) -> Metadata:
    """Reads the description of a native file, without comparing it with the weights.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, or is not a native one.
    """
    with opened(path) as file:
        text = (file.metadata() or {}).get(_METADATA_KEY)
    if text is None:
        raise ValueError(
            f"{path}: a safetensors file without the description of a native checkpoint; "
            "an official file is imported first (scripts/import_checkpoint.py)"
        )
    try:
        fields = parse_json(text)
        metadata = replace(Metadata(*map(fields.__getitem__, _FIELDS)), digest=fields.get(_DIGEST))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = one_line(error, 200) if type(error) is ValueError else type(error).__name__
        raise ValueError(f"{path}: description is damaged ({reason})") from error
    texts = (metadata.class_name, metadata.sha256, metadata.dtype)
    mappings = (metadata.settings, metadata.provenance)
    if not all(isinstance(v, str) for v in texts) or not all(isinstance(v, dict) for v in mappings):
        raise ValueError(f"{path}: description is damaged (a field has the wrong type)")
    if metadata.format_version != FORMAT_VERSION:
        raise ValueError(
            f"{path}: format version {shown(metadata.format_version)}, expected {FORMAT_VERSION}"
        )
    if metadata.digest not in (None, _description_digest(fields)):
        raise ValueError(f"{path}: settings do not match their sha256; the file is damaged")
    return metadata


def _description_digest(fields: Mapping[str, Any]) -> str:
    decisive = {name: fields[name] for name in ("class", "settings", "sha256")}
    text = json.dumps(decisive, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def settings_digest(module: nn.Module) -> str:
    """Computes sha256 over what a registered module is built from, without its weights."""
    return hashlib.sha256(json.dumps(_describe(module), sort_keys=True).encode()).hexdigest()


def _describe(module: nn.Module) -> dict[str, Any]:
    """Returns registered name and settings of a module, those of modules within it nested."""
    name = next((name for name, cls in _registry.items() if cls is type(module)), None)
    if name is None:
        raise ValueError(f"{type(module).__name__} is not registered; {_known_names()}")
    settings: dict[str, Any] = vars(module)["settings"]
    described = {k: _describe(v) if isinstance(v, nn.Module) else v for k, v in settings.items()}
    return {_CLASS_KEY: name, "settings": described}


def _build(description: Mapping[str, Any], path: str | Path) -> nn.Module:
    """Constructs what `_describe` has described."""
    name = description[_CLASS_KEY]
    cls = _registered(name, path)
    settings = {
        key: _build(value, path) if _is_description(value) else value
        for key, value in description["settings"].items()
    }
    try:
        check_types(cls, settings)
        return cls(**settings)
    except _FAULTS as error:
        reason = one_line(error, 300)
        raise ValueError(f"{path}: {name} cannot be built from its settings: {reason}") from error


def _with_references(
    settings: Mapping[str, Any], path: str | Path
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Loads the modules that lie in files beside this one: settings with them, their weights."""
    built: dict[str, Any] = dict(settings)
    weights: dict[str, Tensor] = {}
    for name, value in settings.items():
        if not _is_reference(value):
            continue
        file = value["$file"]
        if not isinstance(file, str) or Path(file).name != (file or "?") or file == Path(path).name:
            raise ValueError(
                f"{path}: {shown(name)} is said to lie in {shown(file)}, no file beside this one"
            )
        source = Path(path).parent / file
        if not source.is_file():
            raise FileNotFoundError(f"{path}: its {name} lies in {file}, which is not beside it")
        metadata = read_metadata(source)
        if metadata.sha256 != value["sha256"] or metadata.digest != value.get(
            _DIGEST, metadata.digest
        ):
            raise ValueError(f"{path}: {file} is another {name} than the one this was made with")
        if any(map(_is_reference, metadata.settings.values())):
            raise ValueError(f"{path}: its {name}, {file}, points to a further file")
        built[name] = load(source)
        weights |= {f"{name}.{key}": value for key, value in built[name].state_dict().items()}
    return built, weights


def _same_weights(module: nn.Module, name: str, source: Path) -> set[str]:
    """Lists the keys of a part that a file holds bit for bit; ValueError where it does not."""
    part, held = module.get_submodule(name), load(source)
    own, other = part.state_dict(), held.state_dict()
    if type(held) is not type(part) or own.keys() != other.keys():
        raise ValueError(f"{source} holds a {type(held).__name__} unlike the module's {name}")
    for key, value in own.items():
        if not torch.equal(value.cpu(), other[key]):
            raise ValueError(f"{source}: {key} differs from that of the module's {name}")
    return {f"{name}.{key}" for key in own}


def _is_reference(value: object) -> bool:
    return isinstance(value, dict) and value.keys() in _REFERENCE_KEYS


def _is_description(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == _DESCRIPTION_KEYS
        and isinstance(value["settings"], dict)
    )


def _registered(name: object, path: str | Path) -> type[nn.Module]:
    if not isinstance(name, str) or name not in _registry:
        raise ValueError(f"{path}: class {shown(name)} is unknown; {_known_names()}")
    return _registry[name]


def _known_names() -> str:
    return f"known: {', '.join(sorted(_registry)) or 'none, no module that registers is imported'}"


def _halved(key: str, value: Tensor) -> Tensor:
    value = value.detach().cpu().clone().contiguous()
    if not value.is_floating_point():
        return value
    halved = value.half()
    if not torch.equal(halved.isfinite(), value.isfinite()):
        raise ValueError(f"{key} exceeds the range of float16: save it with half=False")
    return halved
