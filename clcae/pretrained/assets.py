"""Finds and loads shipped files: the portraits generator, its judges, trained methods."""

from pathlib import Path

from clcae.frozen.portraits import AttributeRegressor, IdentityEmbedder, PortraitJudges
from clcae.serialization import load
from clcae.stylegan2 import Generator

SHIPPED = "portraits"
FOLDER = Path(__file__).resolve().parents[1] / "portraits" / "assets"


def is_shipped(source: str | Path) -> bool:
    """Returns whether a source is a shipped name: "portraits", or "portraits/NAME".

    A file of that name is taken instead; a folder, which no command could load, is not.
    """
    name = str(source)
    return (name == SHIPPED or name.startswith(f"{SHIPPED}/")) and not Path(name).is_file()


def asset_path(name: str) -> Path:
    """Finds the shipped file of a name such as "generator".

    Raises:
        FileNotFoundError: if there is none, with the names there are.
    """
    paths = {file.stem: file for file in sorted(FOLDER.glob("*.safetensors"))}
    if name not in paths:
        names = ", ".join(paths) or "none"
        raise FileNotFoundError(f"no shipped file is called {name!r}; there are: {names}")
    return paths[name]


def portraits_generator() -> Generator:
    """Loads the embedded StyleGAN2, 64x64, frozen."""
    return load(asset_path("generator"), expected=Generator).eval().requires_grad_(False)


def portraits_judges() -> PortraitJudges:
    """Loads the identity embedder and the attribute regressor."""
    return PortraitJudges(
        identity=load(asset_path("identity"), expected=IdentityEmbedder),
        attributes=load(asset_path("attributes"), expected=AttributeRegressor),
    )
