"""The import door: an official file in, a module of ours out, with an account of every key.

The layout is told by the content. Loading is strict: every key of the file is used or ignored by
name, every weight of the module is filled, every shape agrees, or nothing is returned.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from clcae.construction import Uninitialised
from clcae.pretrained.contents import Contents, sha256, source_keys
from clcae.pretrained.keymap import passed_over
from clcae.pretrained.layouts import LAYOUTS, Layout, Request, layout_of
from clcae.serialization import is_native, load
from clcae.stylegan2 import Generator

LARGE = 1 << 26  # numbers: the largest feature of a generator of 1024 pixels, twice
_FAULTS = (ValueError, RuntimeError, MemoryError, OverflowError, LookupError, TypeError)
_VERBS = ("is ", "has ", "holds ", "does ", "its ")

__all__ = ["LAYOUTS", "Imported", "Report", "import_checkpoint"]


@dataclass(frozen=True)
class Report:
    """The keys of a file: those that became weights, and those that carry nothing for us."""

    used: tuple[str, ...]
    ignored: tuple[str, ...]
    notes: tuple[str, ...]  # what was assumed or computed

    def lines(self) -> list[str]:
        """The report in words, a line each; a section of which nothing is used is one line."""
        lines = [f"{len(self.used)} keys used", f"{len(self.ignored)} keys ignored"]
        prefixes = {prefix for key in self.used for prefix in _prefixes(key)}
        sections: dict[str, int] = {}
        for key in self.ignored:
            free = (prefix for prefix in _prefixes(key) if prefix not in prefixes)
            section = next(free, key)
            sections[section] = sections.get(section, 0) + 1
        lines += [
            f"  {name}" if count == 1 else f"  {name}.* ({count} keys)"
            for name, count in sections.items()
        ]
        return lines + [f"note: {note}" for note in self.notes]


@dataclass(frozen=True)
class Imported:
    """A module, in evaluation mode, and where it comes from."""

    module: nn.Module
    layout: str
    report: Report
    provenance: Mapping[str, Any]  # layout, file name without folder, sha256; also of companions


def import_checkpoint(
    path: str | Path,
    *,
    which: str | None = None,
    companion: str | Path | None = None,
    generator: str | Path | None = None,
    image_size: tuple[int, int] | None = None,
) -> Imported:
    """Reads an official file, runs nothing of it, and builds the module it describes.

    Args:
        path: the file.
        which: which network, where it holds several: "G_ema", "G" or "D" of a .pkl; "g_ema", "g"
            or "d" of rosinality's; "e4e" or "psp" where a file does not say which it is.
        companion: the other file, where a module takes two: the other tower of the aligner.
        generator: official or native file of the generator, for what CLCAE's files lack: the mean
            code and its picture.
        image_size: (height, width) that a CLCAE encoder reads, where it is not the default.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read as data, is of no known layout, or does not fit it: missing,
            unexpected and wrongly shaped keys are listed. One line.
    """
    if is_native(path):
        raise ValueError(f"{path} is a native file already: load it with clcae.load_generator")
    contents = Contents.open(path)
    request = Request(
        which=which,
        companion=None if companion is None else Contents.open(companion),
        generator=None if generator is None else _generator(generator),
        image_size=image_size,
    )
    try:
        layout = layout_of(contents)
        if which is not None and which not in layout.choices:
            choices = ", ".join(layout.choices) or "it holds one network"
            raise ValueError(f"is a {layout.name} and has no {which!r}: {choices}")
        # Sizes come from the file: a tensor may be no larger than it, or than a large feature.
        with passed_over() as skipped, Uninitialised(contents.size + LARGE):
            module = layout.build(contents, request)
        report = _report(layout, contents, request, skipped)
    except _FAULTS as error:
        line = str(error) if type(error) is ValueError else f"does not fit ({error!r})"
        colon = "" if line.startswith(_VERBS) else ":"
        raise ValueError(" ".join(f"{path}{colon} {line}".split())) from error
    provenance: dict[str, Any] = {"layout": layout.name, **_origin(path)}
    for name, other in (("companion", companion), ("generator", generator)):
        if other is not None:
            provenance[name] = _origin(other)
    return Imported(module.eval(), layout.name, report, provenance)


def _prefixes(key: str) -> list[str]:
    """The key and all that it lies in, outermost first: a.b gives a and a.b."""
    parts = key.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def _report(layout: Layout, contents: Contents, request: Request, skipped: list[str]) -> Report:
    used, ignored, notes = [], [], []
    for given in (contents, request.companion):
        if given is None:
            continue
        unexpected = [name for name in given.unused() if not layout.ignores(name)]
        if unexpected:
            listed = ", ".join(unexpected[:4])
            raise ValueError(f"holds {len(unexpected)} names that no {layout.name} has ({listed})")
        passed = source_keys(skipped, given.used)
        used += [key for key in given.used if key not in passed]
        ignored += sorted(passed) + given.unused()
        notes += given.notes
    return Report(tuple(used), tuple(ignored), tuple(notes))


def _origin(path: str | Path) -> dict[str, str]:
    return {"file": Path(path).name, "sha256": sha256(path)}


def _generator(path: str | Path) -> Generator:
    module = load(path) if is_native(path) else import_checkpoint(path).module
    if not isinstance(module, Generator):
        raise ValueError(f"{path} holds a {type(module).__name__}, expected a generator")
    return module.requires_grad_(False)
