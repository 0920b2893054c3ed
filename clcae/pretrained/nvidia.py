"""NVIDIA's .pkl files (stylegan2-ada-pytorch, and StyleGAN2 of stylegan3), and their layout.

Such a file pickles each network with the Python source of its class, which NVIDIA's loader runs;
and the memory of each tensor as a file of torch.save within the pickle, which torch loads without
weights_only: two ways to run a stranger's code. Here the source is never compiled nor kept, and the
inner files go through `torch_file`. What remains of a network is its class's name, what it was made
with, and its state dict.

Blocks are named by resolution (`synthesis.b64.conv0`), the noise map lives in its layer, and the
mean latent in the mapping network. Values map one to one: the official importers apply the same
flips and the same bias of one that rosinality's do.
"""

import io
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clcae.ops import low_pass
from clcae.pretrained.keymap import Entry, KeyMap, check_colours, count, require
from clcae.quoting import shown
from clcae.stylegan2 import Discriminator, Generator, Layer
from clcae.unpickling.modules import ModuleStandIn, state_dict_of
from clcae.unpickling.torch_file import peek, read_stream, reading, refusal
from clcae.unpickling.unpickler import (
    Budget,
    Call,
    Storage,
    Unpickler,
    allowed_names,
    ordered_dict,
)

GENERATOR = "stylegan2-ada generator (G_ema)"
DISCRIMINATOR = "stylegan2-ada discriminator (D)"
NETWORKS = ("G", "D", "G_ema")


@dataclass(frozen=True)
class Network:
    """A network of the file."""

    class_name: str
    init_args: tuple[Any, ...]
    init_kwargs: Mapping[str, Any]
    state: dict[str, Tensor]


def read_nvidia_pickle(path: str | Path) -> dict[str, Network]:
    """Reads the networks of a .pkl by name: those of "G", "D" and "G_ema" that it has.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no such pickle, is damaged, or asks for anything but data; one line.
    """
    with reading(path) as file:
        start, size = peek(file), Path(path).stat().st_size
        if start[:1] != pickle.PROTO:
            raise ValueError(refusal(start))
        budget = Budget(size)
        table = allowed_names(budget) | {
            "dnnlib.util.EasyDict": Call(lambda *pairs: ordered_dict(budget, *pairs)),
            "dnnlib.EasyDict": Call(lambda *pairs: ordered_dict(budget, *pairs)),
            "torch_utils.persistence._reconstruct_persistent_obj": Call(_persistent),
            "torch.storage._load_from_bytes": Call(lambda data: _storage(data, budget)),
        }
        try:
            content = Unpickler(file, size=size, names=table).load()
        except ValueError as error:
            if "dnnlib.tflib" in str(error):
                raise ValueError(
                    "is a TensorFlow pickle; convert it with legacy.py of stylegan2-ada-pytorch"
                ) from error
            raise
        networks = content if isinstance(content, dict) else {}
        found = {name: networks[name] for name in NETWORKS if name in networks}
        if not found or not all(isinstance(value, ModuleStandIn) for value in found.values()):
            raise ValueError("is a pickle without the networks G, D or G_ema of NVIDIA's files")
        return {name: _network(value, budget) for name, value in found.items()}


def _persistent(meta: Any) -> ModuleStandIn:
    if type(meta) is not dict or meta.get("type") != "class":
        raise ValueError("holds a persistent object of another form")
    name, state = meta.get("class_name"), meta.get("state")
    if not isinstance(name, str) or type(state) is not dict:
        raise ValueError("holds a persistent object without name or state")
    return ModuleStandIn(name, state)


def _storage(data: Any, budget: Budget) -> Storage:
    """Reads the file of torch.save within the pickle, which torch would load unsafely."""
    if not isinstance(data, bytes):
        raise ValueError(f"loads a tensor from a {type(data).__name__}")
    budget.spend(len(data))
    storage = read_stream(io.BytesIO(data), len(data))
    if not isinstance(storage, Storage):
        raise ValueError(f"holds a {type(storage).__name__} where a tensor's memory is due")
    return storage


def _network(network: ModuleStandIn, budget: Budget) -> Network:
    arguments, keywords = (network.state.get(key) for key in ("_init_args", "_init_kwargs"))
    return Network(
        class_name=network.class_name,
        init_args=tuple(arguments) if isinstance(arguments, tuple | list) else (),
        init_kwargs=keywords if isinstance(keywords, dict) else {},
        state=state_dict_of(network, budget),
    )


def _to_map(tensor: Tensor) -> Tensor:
    return tensor[None, None]


def _from_map(tensor: Tensor) -> Tensor:
    return tensor[0, 0]


def _filters(names: list[str]) -> dict[str, Tensor]:
    taps = low_pass()
    return {f"{name}.resample_filter": torch.outer(taps, taps) for name in names}


def _blocks(state: Mapping[str, Tensor], pattern: str) -> int:
    """Counts the resolutions that the keys name."""
    sides = {int(match[1]) for key in state if (match := re.match(pattern, key))}
    return len(sides)


def generator_keymap(*, num_layers: int, mapping_layers: int) -> KeyMap:
    """Returns the table of a generator."""
    entries = [
        Entry("mapping.w_avg", "w_average"),
        Entry("synthesis.b4.const", "synthesis.const"),
    ]
    filtered = []
    for index in range(mapping_layers):
        for part in ("weight", "bias"):
            entries.append(Entry(f"mapping.fc{index}.{part}", f"mapping.layers.{index}.{part}"))
    for index in range(num_layers):
        layer = Layer(index)
        block = f"synthesis.b{layer.resolution}"
        source = f"{block}.conv{1 if layer.ends_block else 0}"
        target = f"synthesis.layers.{index}"
        filtered.append(source)
        entries += [
            Entry(f"{source}.{part}", f"{target}.{part}")
            for part in ("weight", "bias", "affine.weight", "affine.bias", "noise_strength")
        ]
        entries.append(Entry(f"{source}.noise_const", f"{target}.noise", _to_map, _from_map))
        if layer.ends_block:
            filtered.append(block)
            target = f"synthesis.to_rgbs.{layer.block}"
            entries += [
                Entry(f"{block}.torgb.{part}", f"{target}.{part}")
                for part in ("weight", "bias", "affine.weight", "affine.bias")
            ]
    return KeyMap(layout=GENERATOR, entries=tuple(entries), constants=_filters(filtered))


def generator_from_state(
    state: Mapping[str, Tensor],
    *,
    mapping_lr_multiplier: float = 0.01,
) -> Generator:
    """Builds a generator whose size is read off the tensors of a `G_ema`.

    No tensor tells `mapping_lr_multiplier`; all official files have the default.

    Raises:
        ValueError: if the keys are not of this layout, or the network is conditional.
    """
    if "mapping.embed.weight" in state:
        raise ValueError(
            f"this {GENERATOR} is conditional (mapping.embed), only others are supported"
        )
    if (colours := state.get("synthesis.b4.torgb.weight")) is not None:
        check_colours(colours, axis=0, network=GENERATOR)
    blocks = _blocks(state, r"synthesis\.b(\d+)\.torgb\.weight$")
    mapping = count(state, r"mapping\.fc\d+\.weight")
    counted = [f"synthesis.b{4 << block}.conv1.weight" for block in range(blocks)]
    require(state, ["mapping.fc0.weight", "synthesis.b4.const", *counted], GENERATOR)
    if blocks < 2:
        raise ValueError(f"this is no {GENERATOR}: {blocks} resolutions, expected 2 or more")
    keymap = generator_keymap(num_layers=2 * blocks - 1, mapping_layers=mapping)
    return keymap.build(
        state,
        lambda: Generator(
            resolution=4 << (blocks - 1),
            z_dim=state["mapping.fc0.weight"].shape[1],
            w_dim=state[f"mapping.fc{mapping - 1}.weight"].shape[0],
            mapping_layers=mapping,
            mapping_dim=state["mapping.fc0.weight"].shape[0],
            mapping_lr_multiplier=mapping_lr_multiplier,
            channels=[state[key].shape[0] for key in counted],
        ),
    )


def generator_from_network(network: Network) -> Generator:
    """Builds a generator from a network of a .pkl, with the settings that no tensor tells.

    Raises:
        ValueError: if it is conditional, of StyleGAN3, of another architecture or activation, or if
            its convolutions are clamped to less than 256.
    """
    if any(key.startswith("synthesis.L0_") for key in network.state):
        raise ValueError("this is a StyleGAN3 network, only those of StyleGAN2 are supported")
    keywords = network.init_kwargs
    classes = network.init_args[1] if len(network.init_args) > 1 else 0  # (z_dim, c_dim, w_dim)
    _check_unconditional(keywords.get("c_dim", classes), GENERATOR)
    synthesis = {**keywords, **_section(keywords, "synthesis_kwargs")}
    mapping = _section(keywords, "mapping_kwargs")
    _only(synthesis, "architecture", "skip", GENERATOR)
    for section in (synthesis, mapping):
        _only(section, "activation", "lrelu", GENERATOR)
    _only(synthesis, "use_noise", True, GENERATOR)
    _check_clamp(synthesis, GENERATOR)
    multiplier = mapping.get("lr_multiplier", 0.01)
    if not isinstance(multiplier, float | int) or not 0 < multiplier <= 1:
        raise ValueError(f"this {GENERATOR} has the mapping lr_multiplier {shown(multiplier)}")
    return generator_from_state(network.state, mapping_lr_multiplier=float(multiplier))


def discriminator_keymap(*, num_blocks: int) -> KeyMap:
    """Returns the table of a discriminator."""
    names = [f"b{8 << block}" for block in reversed(range(num_blocks))]
    pairs = [(f"{names[0]}.fromrgb", "from_rgb")]
    pairs += [("b4.conv", "conv"), ("b4.fc", "linear"), ("b4.out", "out")]
    entries, filtered = [], [f"{names[0]}.fromrgb", "b4.conv"]
    for block, name in enumerate(names):
        pairs += [(f"{name}.conv{k}", f"blocks.{block}.conv{k}") for k in (0, 1)]
        entries.append(Entry(f"{name}.skip.weight", f"blocks.{block}.skip.weight"))
        filtered += [name, f"{name}.conv0", f"{name}.conv1", f"{name}.skip"]
    for source, target in pairs:
        entries += [Entry(f"{source}.{part}", f"{target}.{part}") for part in ("weight", "bias")]
    return KeyMap(layout=DISCRIMINATOR, entries=tuple(entries), constants=_filters(filtered))


def discriminator_from_state(state: Mapping[str, Tensor], *, group_size: int = 4) -> Discriminator:
    """Builds a discriminator whose size is read off a `D`. Raises ValueError as above.

    No tensor tells `group_size`, of the minibatch statistics.
    """
    if any(key.startswith("mapping.") for key in state):
        raise ValueError(
            f"this {DISCRIMINATOR} is conditional (mapping), only others are supported"
        )
    num_blocks = _blocks(state, r"b(\d+)\.skip\.weight$")
    if not num_blocks:
        raise ValueError(f"this is no {DISCRIMINATOR}: no residual block (b8.skip.weight)")
    names = [f"b{8 << block}" for block in range(num_blocks)]
    counted = [f"{name}.skip.weight" for name in names]
    require(state, [f"{names[-1]}.fromrgb.weight", *counted], DISCRIMINATOR)
    check_colours(state[f"{names[-1]}.fromrgb.weight"], axis=1, network=DISCRIMINATOR)
    high = [state[f"{names[-1]}.fromrgb.weight"].shape[0]]
    channels = [state[key].shape[0] for key in counted] + high
    return discriminator_keymap(num_blocks=num_blocks).build(
        state,
        lambda: Discriminator(resolution=4 << num_blocks, channels=channels, group_size=group_size),
    )


def discriminator_from_network(network: Network) -> Discriminator:
    """Builds a discriminator from a network of a .pkl, with the settings that no tensor tells.

    Raises:
        ValueError: if it is conditional, of another architecture or activation, or its minibatch
            statistics have no group size.
    """
    keywords = network.init_kwargs
    _check_unconditional(keywords.get("c_dim", 0), DISCRIMINATOR)
    blocks, epilogue = (_section(keywords, f"{part}_kwargs") for part in ("block", "epilogue"))
    for section in (keywords, epilogue):
        _only(section, "architecture", "resnet", DISCRIMINATOR)
    for section in (blocks, epilogue):
        _only(section, "activation", "lrelu", DISCRIMINATOR)
    _check_clamp(keywords, DISCRIMINATOR)
    group = epilogue.get("mbstd_group_size", 4)
    if not isinstance(group, int) or not 0 < group < 1 << 16:
        raise ValueError(f"this {DISCRIMINATOR} has the mbstd_group_size {shown(group)}")
    return discriminator_from_state(network.state, group_size=group)


def _check_unconditional(classes: object, layout: str) -> None:
    if classes != 0:
        raise ValueError(
            f"this {layout} is conditional (c_dim {shown(classes)}), only others are supported"
        )


def _section(keywords: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = keywords.get(name)
    return section if isinstance(section, Mapping) else {}


def _only(keywords: Mapping[str, Any], name: str, value: object, layout: str) -> None:
    given = keywords.get(name, value)
    if given != value:
        raise ValueError(f"this {layout} has {name}={shown(given)}, only {value!r} is supported")


def _check_clamp(keywords: Mapping[str, Any], layout: str) -> None:
    """Official files clamp at 256, which float32 weights do not reach."""
    clamp = keywords.get("conv_clamp")
    if clamp is not None and (not isinstance(clamp, int | float) or clamp < 256):
        raise ValueError(
            f"this {layout} has conv_clamp={shown(clamp)}, only None and 256 are supported"
        )
