"""Methods that need no training: optimization/NAME and pivotal_tuning/NAME of configs/method."""

from pathlib import Path

import torch

from clcae.methods.interface import InversionMethod
from clcae.pretrained.loading import load_method
from training.errors import UserError, choices_of

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FOLDERS = ("optimization/", "pivotal_tuning/")
PORTRAITS = {"_target_": "clcae.load_generator", "source": "portraits"}


def names() -> list[str]:
    """Lists the names: optimization/w_plus and so on."""
    return [name for name in choices_of(CONFIGS, "method") if name.startswith(FOLDERS)]


def load_or_build(source: str, *, generator: str | None = None) -> InversionMethod:
    """Loads a method, or builds one of `names` around a generator.

    Args:
        source: one of `names`, or what `clcae.load_method` takes; a file of the name goes first.
        generator: file of the generator; None is the portraits'.

    Raises:
        FileNotFoundError: if there is no such file or name.
        ValueError: if a file holds no method, a generator is given beside a file, or the method
            cannot be built; in one line.
    """
    if Path(source).is_file() or not source.startswith(FOLDERS):
        if generator is not None:
            listed = ", ".join(f"{folder}NAME" for folder in FOLDERS)
            raise ValueError(f"--generator is for {listed}, {source} has its own")
        return load_method(source)
    if source not in names():
        raise FileNotFoundError(f"there is no method {source}; there are {', '.join(names())}")
    if generator is not None and not Path(generator).is_file():
        raise FileNotFoundError(f"there is no file {generator}, expected a generator")
    # Slow to import.
    from omegaconf import OmegaConf

    from training.commandline import composed
    from training.parts import Parts

    try:
        given = [f"method={source}", *([f"generator={generator}"] if generator else [])]
        config = OmegaConf.to_container(composed(CONFIGS, "evaluate", given), resolve=True)
        assert isinstance(config, dict)
        node = {"method": config["method"], "generator": config.get("generator") or PORTRAITS}
        method = Parts(config=node, device=torch.device("cpu"), seed=0)["method"]
    except UserError as error:
        raise ValueError(str(error)) from error
    assert isinstance(method, InversionMethod)
    return method.eval().requires_grad_(False)
