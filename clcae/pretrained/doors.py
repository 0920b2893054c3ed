"""The public doors: a generator or a method from a file or a name."""

from pathlib import Path

from torch import nn

from clcae.frozen.face_embedders import FaceEmbedder
from clcae.frozen.moco import MoCo
from clcae.methods.clcae import CLCAE
from clcae.methods.e4e import E4E, PSP
from clcae.methods.interface import InversionMethod
from clcae.methods.official_clcae import OfficialCLCAE
from clcae.methods.projection import Projection
from clcae.pretrained.assets import asset_path, portraits_generator
from clcae.pretrained.importer import import_checkpoint
from clcae.serialization import is_native, load
from clcae.stylegan2 import Generator

SHIPPED = "portraits/"  # "portraits/NAME" is the shipped file NAME
# Imported so that native files find their class by its registered name.
_KNOWN = (CLCAE, E4E, PSP, OfficialCLCAE, Projection, FaceEmbedder, MoCo)


def load_generator(source: str | Path) -> Generator:
    """A frozen generator in evaluation mode, on the CPU.

    Args:
        source: "portraits", a native .safetensors file, an official .pkl (its G_ema), or a .pt in
            the layout of rosinality/stylegan2-pytorch. Where the mean latent is missing it is
            computed from 100,000 mapped samples.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is none of these, with what was found.
    """
    if str(source) == "portraits":
        return portraits_generator()
    path = _existing(source, "a generator")
    module = _opened(path)
    if not isinstance(module, Generator):
        raise ValueError(f"{path} holds a {type(module).__name__}, expected a generator")
    return module.eval().requires_grad_(False)


def load_method(source: str | Path, *, generator: str | Path | None = None) -> InversionMethod:
    """A trained inversion method in evaluation mode, on the CPU.

    Args:
        source: "portraits/clcae", the method that is shipped, a native .safetensors file such as
            the one a run leaves, or an official file of e4e, pSp or CLCAE.
        generator: file of the generator, from which an official CLCAE file takes the mean latent;
            None computes it.

    Raises:
        FileNotFoundError: there is no such file or name.
        ValueError: the file holds something else.
    """
    name = str(source)
    if name.startswith(SHIPPED) and not Path(name).exists():
        path = asset_path(name.removeprefix(SHIPPED))
    else:
        path = _existing(source, "a method")
    method = _opened(path, generator)
    if not isinstance(method, InversionMethod):
        raise ValueError(f"{path} holds a {type(method).__name__}, expected an inversion method")
    return method.eval().requires_grad_(False)


def _opened(path: Path, generator: str | Path | None = None) -> nn.Module:
    return load(path) if is_native(path) else import_checkpoint(path, generator=generator).module


def _existing(source: str | Path, what: str) -> Path:
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(
            f"there is no file {source}, expected {what}: a path, or a shipped name "
            "(portraits for the generator)"
        )
    return path
