"""A generator with some of its weights changed, beside the one it comes from.

A change is named after the parameter that it replaces, or NAME.gain: a number D for each pair of
channels of a convolution, whose weight becomes weight * (1 + D). That is HyperStyle's
parametrisation (Alaluf et al. 2022, arXiv 2111.15666, section 3.2), a ninth of a 3x3 weight.

The mapping network is never changed: pivotal tuning (arXiv 2106.05744) gives its optimiser all
parameters, but codes of W let no gradient reach it.
"""

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from clcae.stylegan2.generator import Generator
from clcae.stylegan2.layer import Layer

GAIN = ".gain"
FROM = "from "
PRESETS: Mapping[str, Sequence[str]] = {
    "all": ["synthesis.**"],
    "convolutions": ["synthesis.layers.*.weight"],
    "to_rgb": ["synthesis.to_rgbs.**"],
    "styles": ["synthesis.*.*.affine.*"],
    "gains": [f"synthesis.*.*.weight{GAIN}"],
}


def chosen_names(generator: Generator, choice: str | Sequence[str]) -> list[str]:
    """Lists the changes that a choice names, in the order of the generator's parameters.

    Args:
        generator: whose parameters they are.
        choice: one or several of: a key of `PRESETS`; "from 32x32/0", all parameters of this layer
            and of those above; a pattern of names such as "synthesis.layers.*.bias", where * is one
            part of a name and ** any number of them.

    Raises:
        ValueError: if an entry names nothing, or a weight is changed in itself and by its gain.
    """
    known = [name for name, _ in _offered(generator)]
    entries = [choice] if isinstance(choice, str) else [*choice]
    found = set[str]()
    for entry in entries:
        if entry.startswith(FROM):
            names = _from_layer(generator.layer(entry.removeprefix(FROM)), known)
        else:
            patterns = PRESETS.get(entry, [entry])
            # Gains are asked for by name: ** reaches every parameter once.
            names = [name for name in known if any(_fits(name, one) for one in patterns)]
            if not entry.endswith(GAIN) and entry != "gains":
                names = [name for name in names if not name.endswith(GAIN)]
        if not names:
            raise ValueError(
                f"tuned has {entry!r}, which names no parameter of the synthesis network: expected "
                f"{', '.join(PRESETS)}, 'from LAYER' or a pattern such as synthesis.layers.*.bias"
            )
        found |= {*names}
    if not found:
        raise ValueError(f"tuned is empty: expected some of {', '.join(PRESETS)}")
    for name in sorted(found):
        if name.endswith(GAIN) and name.removesuffix(GAIN) in found:
            raise ValueError(f"tuned has {name.removesuffix(GAIN)} and its gain: expected one")
    return [name for name in known if name in found]


def unchanged(generator: Generator, names: Sequence[str]) -> dict[str, Tensor]:
    """Returns the changes that change nothing: copies of parameters, and gains of 0."""
    shapes, parameters = dict(_offered(generator)), dict(generator.named_parameters())
    return {
        name: generator.w_average.new_zeros(shapes[name])
        if name.endswith(GAIN)
        else parameters[name].detach().clone()
        for name in names
    }


def with_changes(
    generator: Generator,
    changes: Mapping[str, Tensor],  # by name; gradients reach them
) -> Generator:
    """Returns a second generator with changed weights; it shares all other tensors with the first.

    Raises:
        ValueError: if a change is of no parameter of the synthesis network, or of another shape.
    """
    check_changes(generator, {name: value.shape for name, value in changes.items()})
    parameters = dict(generator.named_parameters())
    shared = [*parameters.values(), *generator.buffers()]
    # What a deep copy finds here it takes instead of a copy. Caches of changed weights start empty.
    taken: dict[int, Any] = {id(tensor): tensor for tensor in shared}
    for index, layer in enumerate(generator.synthesis.layers):
        weight = f"synthesis.layers.{index}.weight"
        if weight not in changes and weight + GAIN not in changes:
            taken[id(layer._frozen)] = layer._frozen
    for name, value in changes.items():
        parameter = parameters[name.removesuffix(GAIN)]
        value = value.to(parameter)
        taken[id(parameter)] = parameter * (1 + value) if name.endswith(GAIN) else value
    return copy.deepcopy(generator, taken)


def check_changes(generator: Generator, shapes: Mapping[str, torch.Size]) -> None:
    """Raises ValueError if changes are of no parameter of the generator, or of another shape."""
    known = dict(_offered(generator))
    for name, shape in shapes.items():
        if name not in known:
            raise ValueError(f"{name[:80]!r} is no parameter of this synthesis network")
        if shape != known[name]:
            raise ValueError(f"{name} has shape {tuple(shape)}, expected {tuple(known[name])}")


def _offered(generator: Generator) -> Iterator[tuple[str, torch.Size]]:
    """Yields names and shapes of all that can be changed."""
    for name, parameter in generator.named_parameters():
        if not name.startswith("synthesis."):
            continue
        yield name, parameter.shape
        if name.endswith(".weight") and parameter.ndim == 4:
            yield name + GAIN, torch.Size([*parameter.shape[:2], 1, 1])


def _from_layer(layer: Layer, known: Sequence[str]) -> list[str]:
    """Lists parameters of layers from one on and of the to-RGB behind them; no gains."""
    found = []
    for name in known:
        _, part, *rest = name.split(".")
        if part == "const":
            reaches = layer.index == 0
        else:  # the to-RGB of a block follows its last layer, number 2 * block
            reaches = int(rest[0]) * (1 if part == "layers" else 2) >= layer.index
        if reaches and not name.endswith(GAIN):
            found.append(name)
    return found


def _fits(name: str, pattern: str) -> bool:
    """Tests whether a pattern names a parameter, in time that grows with both lengths alone.

    Patterns may come from a stranger's file: as a regular expression some would take hours.
    """
    ends = {0}  # of the beginnings of the name that the pattern so far fits
    for part in re.findall(r"\*\*|\*|[^*]+", pattern):
        if part == "**":
            ends = {*range(min(ends), len(name) + 1)}
        elif part == "*":  # to the next dot at most
            ends = {end for each in ends for end in range(each, f"{name}.".index(".", each) + 1)}
        else:
            ends = {end + len(part) for end in ends if name.startswith(part, end)}
        if not ends:
            return False
    return len(name) in ends
