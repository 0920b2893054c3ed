"""Methods that a configuration builds around a generator, without a file of their own.

They are `optimization`, `pivotal_tuning`, the files of these two folders, and the searches from
trained encoders, of configs/method.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from clcae.methods.interface import InversionMethod
from clcae.pretrained.loading import load_method
from training.errors import UserError, choices_of, one_line

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FROM_ENCODERS = (
    "base_code_search_portraits",
    "in_domain_search_ffhq",
    "in_domain_search_portraits",
)
ROOTS = ("optimization", "pivotal_tuning", *FROM_ENCODERS)
LISTED = "optimization, pivotal_tuning and searches from encoders"  # for messages
PORTRAITS = {"_target_": "clcae.load_generator", "source": "portraits"}


def names() -> list[str]:
    """Lists the names: optimization/w_plus and so on."""
    return [name for name in choices_of(CONFIGS, "method") if _root(name) in ROOTS]


def load_or_build(
    source: str, *, generator: str | None = None, settings: Sequence[str] = ()
) -> InversionMethod:
    """Loads a method, or builds one of `names` around a generator.

    Args:
        source: one of `names`, or what `clcae.load_method` takes; a file of the name goes first.
        generator: file of the generator; None is the portraits'.
        settings: KEY=VALUE of the method's configuration, such as steps=100 or encoder.source=FILE,
            as the command line of scripts/evaluate.py takes method.KEY=VALUE; a key that the file
            in configs/method leaves out may be an argument of the method's class.

    Raises:
        FileNotFoundError: if there is no such file or name.
        ValueError: if a file holds no method, a generator or settings are given beside a file, or
            the method cannot be built; in one line.
    """
    if Path(source).is_file() or _root(source) not in ROOTS:
        if generator is not None or settings:
            option = "--set" if generator is None else "--generator"
            raise ValueError(f"{option} is for {LISTED}, {source} has its own")
        return load_method(source)
    if source not in names():
        raise FileNotFoundError(f"there is no method {source}; there are {', '.join(names())}")
    if generator is not None and not Path(generator).is_file():
        raise FileNotFoundError(f"there is no file {generator}, expected a generator")
    for setting in settings:
        if not re.match(r"[a-z_.]+=.", setting):
            raise ValueError(f"--set {setting}: expected KEY=VALUE, such as steps=100")
    # Slow to import.
    from omegaconf import OmegaConf

    from training.commandline import composed
    from training.parts import Parts

    try:
        given = [f"method={source}", *(f"++method.{setting}" for setting in settings)]
        config = OmegaConf.to_container(composed(CONFIGS, "evaluate", given), resolve=True)
        assert isinstance(config, dict)
        # Not by way of Hydra, which reads some names of files as something else.
        own = PORTRAITS if generator is None else {**PORTRAITS, "source": generator}
        node = {"method": config["method"], "generator": own}
        method = Parts(config=node, device=torch.device("cpu"), seed=0)["method"]
    except OverrideParseException as error:
        told = str(error.override).removeprefix("++method.")
        raise ValueError(f"--set {told}: cannot be read, expected KEY=VALUE") from error
    except (UserError, HydraException, OmegaConfBaseException) as error:
        raise ValueError(one_line(str(error))) from error
    assert isinstance(method, InversionMethod)
    return method.eval().requires_grad_(False)


def _root(name: str) -> str:
    return name.partition("/")[0]
