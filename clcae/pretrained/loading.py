"""Loads a generator, a method or any official file: native, official or shipped, by path or name.

The layout of an official file is told by its content. Importing is strict: every key of the file is
used or ignored by name, every weight of the module is filled, every shape agrees, or nothing is
returned. Nothing of a file is ever run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from clcae.construction import SizeLimit, check_finite
from clcae.encoders.base_code import BaseCodeEncoder
from clcae.files import sha256
from clcae.frozen.face_embedders import FaceEmbedder
from clcae.frozen.moco import MoCo
from clcae.frozen.perceptual import LPIPS
from clcae.methods.clcae import CLCAE
from clcae.methods.e4e import E4E, PSP
from clcae.methods.e4e_z_plus import E4EZPlus
from clcae.methods.in_domain import InDomain
from clcae.methods.interface import InversionMethod
from clcae.methods.official_clcae import OfficialCLCAE
from clcae.methods.optimization import Optimization
from clcae.methods.pivotal_tuning import PivotalTuning
from clcae.methods.styleres import StyleRes
from clcae.pretrained.assets import SHIPPED, asset_path, is_shipped, portraits_generator
from clcae.pretrained.contents import Contents, holds_tensors
from clcae.pretrained.layouts import Layout, Request, layout_of
from clcae.quoting import listing, one_line, shown
from clcae.serialization import is_native, load
from clcae.stylegan2 import Discriminator, Generator

LARGE = 1 << 26  # numbers: the largest feature of a generator of 1024 pixels, twice
# Imported so that native files find their class by its registered name.
_KNOWN = (
    *(CLCAE, E4E, E4EZPlus, InDomain, PSP, OfficialCLCAE, Optimization, PivotalTuning, StyleRes),
    *(BaseCodeEncoder, FaceEmbedder, LPIPS, MoCo),
)
_FAULTS = (ValueError, RuntimeError, MemoryError, ArithmeticError, LookupError, TypeError)
_SHIPPED_AS = {"a generator": "portraits", "a method": "portraits/clcae"}
_VERBS = ("is ", "has ", "holds ", "does ", "its ")


def load_generator(source: str | Path) -> Generator:
    """Loads a frozen StyleGAN2 generator in evaluation mode, on the CPU.

    Args:
        source: "portraits", a native .safetensors file, an official .pkl (its G_ema), or a .pt in
            the layout of rosinality/stylegan2-pytorch. Where the mean latent is missing it is
            computed from 100,000 mapped samples.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is none of these, with what was found.
    """
    if str(source) == SHIPPED and is_shipped(source):
        return portraits_generator()
    path = _existing(source, "a generator")
    module = load(path) if is_native(path) else import_checkpoint(path).module
    if not isinstance(module, Generator):
        raise ValueError(
            f"{path} holds a {type(module).__name__}, expected a generator of StyleGAN2, the only "
            "family that is supported"
        )
    return module.eval().requires_grad_(False)


def load_discriminator(source: str | Path, *, which: str | None = None) -> Discriminator:
    """Loads a discriminator of StyleGAN2, on the CPU, to begin a training with.

    Args:
        source: a native file, or an official one as of `load_generator`.
        which: "D" of a .pkl, "d" of a rosinality .pt; None for a file of one network.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file holds something else; or if `which` is given for a native file.
    """
    path = _existing(source, "a discriminator")
    if not is_native(path):
        module = import_checkpoint(path, which=which).module
    elif which is None:
        module = load(path)
    else:
        raise ValueError(f"{path} is a native file, which takes no which")
    if not isinstance(module, Discriminator):
        raise ValueError(f"{path} holds a {type(module).__name__}, expected a discriminator")
    return module


def load_base_code(source: str | Path) -> BaseCodeEncoder:
    """Loads the base-code encoder of F/Z+ in evaluation mode, frozen, on the CPU.

    Args:
        source: a native file, such as the one that its training leaves, or an official one.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file holds something else.
    """
    path = _existing(source, "a base-code encoder")
    module = load(path) if is_native(path) else import_checkpoint(path).module
    if not isinstance(module, BaseCodeEncoder):
        raise ValueError(f"{path} holds a {type(module).__name__}, expected a base-code encoder")
    return module.eval().requires_grad_(False)


def load_method(
    source: str | Path,
    *,
    generator: str | Path | None = None,
    which: str | None = None,
    image_size: tuple[int, int] | None = None,
) -> InversionMethod:
    """Loads a trained inversion method in evaluation mode, on the CPU.

    Args:
        source: "portraits/clcae", the method that is shipped, a native .safetensors file such as
            the one a run leaves, or an official file of e4e, pSp, CLCAE, StyleRes or IDInvert.
        generator: file of the generator, from which an official CLCAE file takes the mean latent;
            None computes it. An official encoder of IDInvert is put before this generator.
        which: "e4e" or "psp", where an official file does not say which it is.
        image_size: (height, width) that the encoder of an official file reads; None is 192 x 256
            where the file says cars, and 256 x 256 otherwise.

    Raises:
        FileNotFoundError: if there is no such file or name.
        ValueError: if the file holds something else; or if `which` or `image_size` is given for a
            native file, which says both itself.
    """
    if source is None:  # of a configuration
        raise ValueError("source is None, expected the file of a method or a shipped name")
    name = str(source).removeprefix(f"{SHIPPED}/")
    if name != str(source) and is_shipped(source):
        path = asset_path(name)
    else:
        path = _existing(source, "a method")
    if not is_native(path):
        module = import_checkpoint(
            path, generator=generator, which=which, image_size=image_size
        ).module
    elif which is None and image_size is None:
        module = load(path)
    else:
        raise ValueError(f"{path} is a native file, which takes no which and no image_size")
    if not isinstance(module, InversionMethod):
        raise ValueError(f"{path} holds a {type(module).__name__}, expected an inversion method")
    return module.eval().requires_grad_(False)


@dataclass(frozen=True)
class Report:
    """The keys of a file: those that became weights, and those that carry nothing for us."""

    used: tuple[str, ...]
    ignored: tuple[str, ...]
    notes: tuple[str, ...]  # what was assumed or computed

    def lines(self) -> list[str]:
        """Formats the report, a line each; a section of which nothing is used is one line."""
        lines = [f"{len(self.used)} keys used", f"{len(self.ignored)} keys ignored"]
        prefixes = {prefix for key in self.used for prefix in _prefixes(key)}
        sections: dict[str, int] = {}
        for key in self.ignored:
            free = (prefix for prefix in _prefixes(key) if prefix not in prefixes)
            section = one_line(next(free, key), 200)
            sections[section] = sections.get(section, 0) + 1
        lines += [
            f"  {name}" if count == 1 else f"  {name}.* ({count} keys)"
            for name, count in sections.items()
        ]
        return lines + [f"note: {note}" for note in self.notes]


@dataclass(frozen=True)
class Imported:
    """A module in evaluation mode, and its origin."""

    module: nn.Module
    layout: str
    report: Report
    files: Mapping[str, str | Path | None]  # "file", and those given beside it

    @property
    def provenance(self) -> dict[str, Any]:
        """Layout, and file name and sha256 of the file and of those beside it; reads them whole."""
        origins: dict[str, Any] = {
            name: {"file": Path(path).name, "sha256": sha256(path)}
            for name, path in self.files.items()
            if path is not None
        }
        return {"layout": self.layout, **origins.pop("file"), **origins}


def import_checkpoint(
    path: str | Path,
    *,
    which: str | None = None,
    companion: str | Path | None = None,
    generator: str | Path | None = None,
    image_size: tuple[int, int] | None = None,
) -> Imported:
    """Imports an official file: builds the module it describes and accounts for every key.

    Args:
        path: the file.
        which: which network, where it holds several: "G_ema", "G" or "D" of a .pkl; "g_ema", "g"
            or "d" of rosinality's; "e4e" or "psp" where a file does not say which it is.
        companion: the other file, where a module takes two: the other tower of the aligner.
        generator: official or native file of the generator, for what CLCAE's files lack: the mean
            code and its picture; and for IDInvert's, which hold an encoder alone.
        image_size: (height, width) that an encoder reads, where it is not the default.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read as data, is of no known layout, or does not fit it; lists
            missing, unexpected and wrongly shaped keys in one line.
    """
    contents = Contents.open(path)
    request = Request(
        which=which,
        companion=None if companion is None else Contents.open(companion),
        generator=None if generator is None else load_generator(generator),
        image_size=image_size,
    )
    try:
        layout = layout_of(contents)
        if which is not None and which not in layout.choices:
            choices = ", ".join(layout.choices) or "it holds one network"
            raise ValueError(f"is a {layout.name} and has no {shown(which)}: {choices}")
        # Sizes come from the file: a tensor may be no larger than it, or than a large feature.
        with SizeLimit(contents.size + LARGE):
            module = layout.build(contents, request)
        check_finite(module.state_dict())  # what was computed of the weights, too
        report = _report(layout, contents, request)
    except _FAULTS as error:
        plain = type(error) is ValueError
        line = one_line(error if plain else f"does not fit ({type(error).__name__}: {error})", 1200)
        colon = "" if line.startswith(_VERBS) else ":"
        raise ValueError(f"{path}{colon} {line}") from error
    files = {"file": path, "companion": companion, "generator": generator}
    return Imported(module.eval(), layout.name, report, files)


def _prefixes(key: str) -> list[str]:
    """The key and all that it lies in, outermost first: a.b gives a and a.b."""
    parts = key.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def _report(layout: Layout, contents: Contents, request: Request) -> Report:
    used, ignored, notes = [], [], []
    for given in (contents, request.companion):
        if given is None:
            continue
        unexpected = [
            name
            for name, value in given.unused().items()
            if not layout.ignores(name) and holds_tensors(value)  # all else carries nothing
        ]
        if unexpected:
            raise ValueError(
                f"holds {len(unexpected)} names that no {layout.name} has "
                f"({listing(unexpected, 4)})"
            )
        skipped = set(given.ignored)
        used += [key for key in given.used if key not in skipped]
        ignored += [*given.ignored, *given.unused()]
        notes += given.notes
    return Report(tuple(used), tuple(ignored), tuple(notes))


def _existing(source: str | Path, what: str) -> Path:
    path = Path(source)
    if not path.exists():
        shipped = _SHIPPED_AS.get(what)
        also = "" if shipped is None else f", or {shipped}, which is shipped"
        raise FileNotFoundError(f"there is no file {source}, expected that of {what}{also}")
    return path
