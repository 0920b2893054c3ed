"""Names in a pickle that lie beside weights: paths, counters, dates, options.

Each becomes plain data: a path its text, a defaultdict a dict, options their attributes. Classes
that are only named, such as the type in defaultdict(list), become texts. Nothing is imported.
"""

from collections.abc import Callable
from typing import Any

from clcae.pretrained.unpickle import (
    Attributes,
    Budget,
    Call,
    allowed_names,
    items_of,
    ordered_dict,
)

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
_DICTS = ("easydict.EasyDict", "munch.Munch", "addict.addict.Dict", "yacs.config.CfgNode")


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
