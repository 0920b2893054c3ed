"""Generators and discriminators in the naming of NVlabs/stylegan2-ada-pytorch.

Blocks are named by resolution (`synthesis.b64.conv0`), the noise map lives in its layer, and the
mean latent in the mapping network. Values map one to one: the official importers apply the same
flips and the same bias of one that rosinality's do.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clcae.ops import low_pass
from clcae.pretrained.keymap import Entry, KeyMap, require
from clcae.pretrained.pickles import Network
from clcae.stylegan2 import Discriminator, Generator, Layer

GENERATOR = "stylegan2-ada generator (G_ema)"
DISCRIMINATOR = "stylegan2-ada discriminator (D)"


def _to_map(tensor: Tensor) -> Tensor:
    return tensor[None, None]


def _from_map(tensor: Tensor) -> Tensor:
    return tensor[0, 0]


def _filters(names: list[str]) -> dict[str, Tensor]:
    taps = low_pass()
    return {f"{name}.resample_filter": torch.outer(taps, taps) for name in names}


def _blocks(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many resolutions from 4 up the keys name."""
    sides = {int(match[1]) for key in state if (match := re.match(pattern, key))}
    return len(sides)


def generator_keymap(*, num_layers: int, mapping_layers: int) -> KeyMap:
    """The table for a generator of so many styled convolutions."""
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
    """A generator whose size is read off the tensors of a `G_ema`.

    Args:
        state: the network's state dict.
        mapping_lr_multiplier: which no tensor tells; all official files have the default.

    Raises:
        ValueError: the keys are not of this layout, or the network is conditional.
    """
    if "mapping.embed.weight" in state:
        raise ValueError(
            f"this {GENERATOR} is conditional (mapping.embed), only others are supported"
        )
    blocks = _blocks(state, r"synthesis\.b(\d+)\.torgb\.weight$")
    mapping = sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", key)) for key in state)
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
    """A generator from a network of a .pkl, with the settings that no tensor tells.

    Raises:
        ValueError: it is conditional, of StyleGAN3, of another architecture or activation, or its
            convolutions are clamped to less than 256.
    """
    if any(key.startswith("synthesis.L0_") for key in network.state):
        raise ValueError("this is a StyleGAN3 network, only those of StyleGAN2 are supported")
    keywords = network.init_kwargs
    synthesis = {**keywords, **_section(keywords, "synthesis_kwargs")}
    mapping = _section(keywords, "mapping_kwargs")
    _only(synthesis, "architecture", "skip", GENERATOR)
    for section in (synthesis, mapping):
        _only(section, "activation", "lrelu", GENERATOR)
    _only(synthesis, "use_noise", True, GENERATOR)
    _check_clamp(synthesis, GENERATOR)
    multiplier = mapping.get("lr_multiplier", 0.01)
    if not isinstance(multiplier, float | int) or not 0 < multiplier <= 1:
        raise ValueError(f"this {GENERATOR} has the mapping lr_multiplier {_shown(multiplier)}")
    return generator_from_state(network.state, mapping_lr_multiplier=float(multiplier))


def generator_to_state(generator: Generator) -> dict[str, Tensor]:
    """The state dict of a `G_ema` that holds what `generator` holds, as copies on the CPU."""
    keymap = generator_keymap(
        num_layers=generator.num_layers, mapping_layers=len(generator.mapping.layers)
    )
    return {key: value.detach().cpu().clone() for key, value in keymap.to_theirs(generator).items()}


def discriminator_keymap(*, num_blocks: int) -> KeyMap:
    """The table for a discriminator of so many residual blocks."""
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
    """A discriminator whose size is read off the tensors of a `D`. Raises ValueError as above.

    Args:
        state: the network's state dict.
        group_size: of the minibatch statistics, which no tensor tells.
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
    high = [state[f"{names[-1]}.fromrgb.weight"].shape[0]]
    channels = [state[key].shape[0] for key in counted] + high
    return discriminator_keymap(num_blocks=num_blocks).build(
        state,
        lambda: Discriminator(resolution=4 << num_blocks, channels=channels, group_size=group_size),
    )


def discriminator_from_network(network: Network) -> Discriminator:
    """A discriminator from a network of a .pkl, with the settings that no tensor tells.

    Raises:
        ValueError: it is conditional, of another architecture or activation, or its minibatch
            statistics have no group size.
    """
    keywords = network.init_kwargs
    blocks, epilogue = (_section(keywords, f"{part}_kwargs") for part in ("block", "epilogue"))
    for section in (keywords, epilogue):
        _only(section, "architecture", "resnet", DISCRIMINATOR)
    for section in (blocks, epilogue):
        _only(section, "activation", "lrelu", DISCRIMINATOR)
    _check_clamp(keywords, DISCRIMINATOR)
    group = epilogue.get("mbstd_group_size", 4)
    if not isinstance(group, int) or not 0 < group < 1 << 16:
        raise ValueError(f"this {DISCRIMINATOR} has the mbstd_group_size {_shown(group)}")
    return discriminator_from_state(network.state, group_size=group)


def _shown(value: object) -> str:
    """A setting of a stranger's file in few words, however large it is."""
    plain = isinstance(value, str | int | float | None)
    return repr(value)[:40] if plain else f"a {type(value).__name__}"


def _section(keywords: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = keywords.get(name)
    return section if isinstance(section, Mapping) else {}


def _only(keywords: Mapping[str, Any], name: str, value: object, layout: str) -> None:
    given = keywords.get(name, value)
    if given != value:
        raise ValueError(f"this {layout} has {name}={_shown(given)}, only {value!r} is supported")


def _check_clamp(keywords: Mapping[str, Any], layout: str) -> None:
    """Official files clamp at 256, which float32 weights do not reach."""
    clamp = keywords.get("conv_clamp")
    if clamp is not None and (not isinstance(clamp, int | float) or clamp < 256):
        raise ValueError(
            f"this {layout} has conv_clamp={_shown(clamp)}, only None and 256 are supported"
        )
