"""Generators and discriminators in the naming of NVlabs/stylegan2-ada-pytorch.

Blocks are named by resolution (`synthesis.b64.conv0`), the noise map lives in its layer, and the
mean latent in the mapping network. Values map one to one: the official importers apply the same
flips and the same bias of one that rosinality's do.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from clcae.ops import low_pass
from clcae.pretrained.keymap import Entry, KeyMap, require
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


def generator_from_state(state: Mapping[str, Tensor]) -> Generator:
    """A generator whose size is read off the tensors of a `G_ema`.

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
    generator = Generator(
        resolution=4 << (blocks - 1),
        z_dim=state["mapping.fc0.weight"].shape[1],
        w_dim=state[f"mapping.fc{mapping - 1}.weight"].shape[0],
        mapping_layers=mapping,
        mapping_dim=state["mapping.fc0.weight"].shape[0],
        channels=[state[key].shape[0] for key in counted],
    )
    keymap = generator_keymap(num_layers=generator.num_layers, mapping_layers=mapping)
    generator.load_state_dict(keymap.to_ours(state, generator))
    return generator


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


def discriminator_from_state(state: Mapping[str, Tensor]) -> Discriminator:
    """A discriminator whose size is read off the tensors of a `D`. Raises ValueError as above."""
    num_blocks = _blocks(state, r"b(\d+)\.skip\.weight$")
    if not num_blocks:
        raise ValueError(f"this is no {DISCRIMINATOR}: no residual block (b8.skip.weight)")
    names = [f"b{8 << block}" for block in range(num_blocks)]
    counted = [f"{name}.skip.weight" for name in names]
    require(state, [f"{names[-1]}.fromrgb.weight", *counted], DISCRIMINATOR)
    high = [state[f"{names[-1]}.fromrgb.weight"].shape[0]]
    channels = [state[key].shape[0] for key in counted] + high
    discriminator = Discriminator(resolution=4 << num_blocks, channels=channels)
    keymap = discriminator_keymap(num_blocks=num_blocks)
    discriminator.load_state_dict(keymap.to_ours(state, discriminator))
    return discriminator
