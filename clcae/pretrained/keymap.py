"""A total, two-way table between the keys of a foreign state dict and ours.

Every source key is used or ignored by name, every target is filled, every shape agrees; anything
else is one error that lists what is wrong. Nothing is ever loaded in part. The tables of IR and
IR-SE trunks, which every family of files shares, stand at the end.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

from clcae.construction import check_finite, without_weights
from clcae.data.transforms import height_and_width
from clcae.nn.trunk import ResidualUnit, SqueezeExcitation, Trunk
from clcae.quoting import listing

ModuleType = TypeVar("ModuleType", bound=nn.Module)

LISTED = 4  # keys named in an error, of each kind


def _same(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Entry:
    """Names of one tensor on both sides, and its conversions."""

    source: str
    target: str
    to_ours: Callable[[Tensor], Tensor] = _same
    to_theirs: Callable[[Tensor], Tensor] = _same


def module_entries(module: nn.Module, *, source: str, target: str) -> list[Entry]:
    """Lists the entries of a module whose tensors have the same names under both prefixes."""
    return [Entry(f"{source}.{part}", f"{target}.{part}") for part in module.state_dict()]


@dataclass(frozen=True)
class KeyMap:
    """The table of one layout."""

    layout: str
    entries: tuple[Entry, ...]
    ignored: tuple[str, ...] = ()  # regular expressions of source keys that carry nothing
    constants: Mapping[str, Tensor] = field(default_factory=dict)  # source keys with a known value

    def to_ours(self, state: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
        """Converts a foreign state dict to that of `module`.

        Raises:
            ValueError: if keys are missing, unexpected, or of another shape, or weights are not
                finite; lists them.
        """
        expected = module.state_dict()
        known = {entry.source for entry in self.entries} | set(self.constants)
        unexpected = [key for key in state if key not in known and not self.ignores(key)]
        missing = [entry.source for entry in self.entries if entry.source not in state]
        unfilled = sorted(set(expected) - {entry.target for entry in self.entries})
        ours: dict[str, Tensor] = {}
        converted: dict[str, Tensor] = {}  # by their source, for messages
        wrong = []
        for entry in self.entries:
            if entry.source not in state:
                continue
            given, target = state[entry.source], expected.get(entry.target)
            try:
                tensor = entry.to_ours(given)
            except (IndexError, RuntimeError):
                tensor = None
            if tensor is None or target is None or tensor.shape != target.shape:
                wrong.append(f"{entry.source} {tuple(given.shape)}")
            elif target.is_floating_point() and not given.is_floating_point():
                wrong.append(f"{entry.source} {given.dtype}")
            else:
                ours[entry.target] = converted[entry.source] = tensor.to(target.dtype)
        if missing or unfilled or unexpected or wrong:
            raise ValueError(
                f"this is no {self.layout}: {_listing('missing', missing + unfilled)}; "
                f"{_listing('unexpected', unexpected)}; {_listing('of another shape', wrong)}"
            )
        self._check_constants(state)
        try:
            check_finite(converted)
        except ValueError as error:
            raise ValueError(f"{self.layout}: {error}") from error
        return ours

    def fill(self, module: ModuleType, state: Mapping[str, Tensor]) -> ModuleType:
        """Assigns the converted tensors to a module, without a copy. Raises as `to_ours`."""
        module.load_state_dict(self.to_ours(state, module), assign=True)
        return module

    def build(self, state: Mapping[str, Tensor], make: Callable[[], ModuleType]) -> ModuleType:
        """Builds a module and fills it with copies of the tensors. Raises as `to_ours`."""
        copies = {key: tensor.clone() for key, tensor in state.items()}
        return self.fill(empty_for(state, make), copies)

    def to_theirs(self, module: nn.Module) -> dict[str, Tensor]:
        """Converts the state dict of `module` to a foreign one; constants are written too."""
        state = module.state_dict()
        theirs = {entry.source: entry.to_theirs(state[entry.target]) for entry in self.entries}
        return theirs | {key: value.clone() for key, value in self.constants.items()}

    def ignores(self, key: str) -> bool:
        """Returns whether a source key carries nothing."""
        return any(re.fullmatch(pattern, key) for pattern in self.ignored)

    def _check_constants(self, state: Mapping[str, Tensor]) -> None:
        for key, value in self.constants.items():
            given = state.get(key)
            if given is not None and not (
                given.numel() == value.numel()
                and torch.allclose(given.float().reshape(-1), value.reshape(-1), atol=1e-5)
            ):
                raise ValueError(
                    f"{self.layout}: {key} is not the [1, 3, 3, 1] filter, the only one supported"
                )


def empty_for(state: Mapping[str, Tensor], make: Callable[[], ModuleType]) -> ModuleType:
    """Builds a module without weights, no larger than the state dict that will fill it.

    The widths that `make` uses may come from the file: nothing is allocated before all shapes agree
    with it.
    """
    return without_weights(make, sizes=[tensor.numel() for tensor in state.values()])


def require(state: Mapping[str, Tensor], keys: Iterable[str], layout: str) -> None:
    """Raises ValueError unless the keys are there from which a network's settings are read."""
    missing = [key for key in keys if key not in state]
    if missing:
        raise ValueError(f"this is no {layout}: {_listing('missing', missing)}")


def check_colours(weight: Tensor, *, axis: int, network: str) -> None:
    """Checks that a convolution from or to colours is one of RGB.

    Raises:
        ValueError: if it has another number of colour channels along the axis.
    """
    channels = weight.shape[axis] if weight.ndim > axis else 3
    if channels == 3:
        return
    kinds = {1: "of one colour channel", 4: "of pictures with alpha (4 channels)"}
    kind = kinds.get(channels, f"of {channels} colour channels")
    raise ValueError(f"this is a {network} {kind}, only RGB is supported")


def count(keys: Iterable[str], pattern: str) -> int:
    """Counts the keys that match a regular expression."""
    return sum(bool(re.fullmatch(pattern, key)) for key in keys)


def section(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Returns the entries whose keys have a prefix, under their keys without it."""
    return {k.removeprefix(prefix): tensor for k, tensor in state.items() if k.startswith(prefix)}


def _listing(kind: str, keys: list[str]) -> str:
    if not keys:
        return f"none {kind}"
    return f"{len(keys)} {kind} ({listing(keys, LISTED)})"


def trunk_entries(trunk: Trunk, *, source: str, target: str) -> list[Entry]:
    """Lists the entries of a trunk, with the prefixes of the foreign keys and of ours.

    Which units have gates and shortcuts is read off the trunk.
    """
    entries = []
    for index, part in enumerate(trunk.stem):
        names = {"source": f"{source}input_layer.{index}", "target": f"{target}stem.{index}"}
        entries += module_entries(part, **names)
    units = [
        (f"{target}stages.{stage}.{name}", unit)
        for stage, children in enumerate(trunk.stages)
        for name, unit in children.named_children()
    ]
    for body, (ours, unit) in enumerate(units):
        assert isinstance(unit, ResidualUnit)
        theirs = f"{source}body.{body}"
        for index, name in enumerate(("norm0", "conv0", "act", "conv1", "norm1")):
            names = {"source": f"{theirs}.res_layer.{index}", "target": f"{ours}.{name}"}
            entries += module_entries(unit.get_submodule(name), **names)
        if isinstance(unit.gates, SqueezeExcitation):
            for part_name, name in (("fc1", "reduce"), ("fc2", "expand")):
                source_key = f"{theirs}.res_layer.5.{part_name}.weight"
                entries.append(Entry(source_key, f"{ours}.gates.{name}.weight"))
        if unit.shortcut is not None:
            names = {"source": f"{theirs}.shortcut_layer", "target": f"{ours}.shortcut"}
            entries += module_entries(unit.shortcut, **names)
    return entries


def encoder_settings(
    state: Mapping[str, Tensor],
    image_size: int | Sequence[int] | None,
    layout: str,
    prefix: str = "encoder.",
) -> tuple[int, list[tuple[int, int]], tuple[int, int]]:
    """Reads stem channels, (channels, units) of the stages and the input's (H, W) off an encoder.

    `image_size` is what the caller wants; None is the square that the first head is built for. The
    keys of the encoder begin with `prefix`.

    Raises:
        ValueError: if keys of the trunk or of the first head are missing, or for a size that the
            head is not built for.
    """
    units = count(state, rf"{re.escape(prefix)}body\.\d+\.res_layer\.3\.weight")
    halvings = count(state, rf"{re.escape(prefix)}styles\.0\.convs\.\d+\.weight")
    widths = [f"{prefix}body.{unit}.res_layer.3.weight" for unit in range(units)]
    stem = f"{prefix}input_layer.0.weight"
    require(state, [stem, f"{prefix}styles.0.linear.weight", *widths], layout)
    stages: list[tuple[int, int]] = []
    for unit, key in enumerate(widths):
        # The first stage is as wide as the stem and has no shortcut to tell where it begins.
        begins = unit == 0 or f"{prefix}body.{unit}.shortcut_layer.0.weight" in state
        units_before = 0 if begins else stages.pop()[1]
        stages.append((state[key].shape[0], units_before + 1))
    side = (1 << halvings) << len(stages)
    shape = height_and_width(side if image_size is None else image_size)
    if max(shape) != side:
        raise ValueError(f"image_size is {image_size}, the heads of this file are for {side}")
    return state[stem].shape[0], stages, shape
