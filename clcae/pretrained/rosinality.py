"""Generators and discriminators in the layout of rosinality/stylegan2-pytorch.

The layout of `stylegan2-ffhq-config-f.pt` and of the decoder inside pSp, e4e and CLCAE files:
weights carry a leading axis, noise maps stand apart, and the mean latent is a sibling of the state
dict. Noise and kernels are buffers of the official file too.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from clcae.files import replacing
from clcae.ops import low_pass
from clcae.pretrained.keymap import Entry, KeyMap, check_colours, count, require
from clcae.quoting import one_line
from clcae.stylegan2 import Discriminator, Generator, Layer

GENERATOR = "rosinality generator (g_ema)"
DISCRIMINATOR = "rosinality discriminator (d)"
OTHERS = "only unconditional ones are supported"
LR_MULTIPLIER = 0.01  # of the mapping network, in every file of this layout
NOISE_SEED = 0  # of noise maps that a file lacks
_CONDITION = re.compile(r"(.*[._])?(embed|label|class)\w*\..*")


def _drop_axis(tensor: Tensor) -> Tensor:
    return tensor.squeeze(0)


def _add_axis(tensor: Tensor) -> Tensor:
    return tensor.unsqueeze(0)


def _scalar(tensor: Tensor) -> Tensor:
    return tensor.reshape([])


def _vector(tensor: Tensor) -> Tensor:
    return tensor.reshape(1)


def _row(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1)


def _plane(tensor: Tensor) -> Tensor:
    return tensor.reshape(1, -1, 1, 1)


def _kernel(gain: float) -> Tensor:
    taps = low_pass()
    return torch.outer(taps, taps) * gain


def _modulated(source: str, target: str) -> list[Entry]:
    return [
        Entry(f"{source}.conv.weight", f"{target}.weight", _drop_axis, _add_axis),
        Entry(f"{source}.conv.modulation.weight", f"{target}.affine.weight"),
        Entry(f"{source}.conv.modulation.bias", f"{target}.affine.bias"),
    ]


def generator_keymap(*, num_layers: int, mapping_layers: int) -> KeyMap:
    """Returns the table of a generator; `latent_avg` is one of its keys."""
    entries = [
        Entry("latent_avg", "w_average"),
        Entry("input.input", "synthesis.const", _drop_axis, _add_axis),
    ]
    constants = {}
    for index in range(mapping_layers):
        for part in ("weight", "bias"):
            source = f"style.{index + 1}.{part}"  # style.0 is the normalisation
            entries.append(Entry(source, f"mapping.layers.{index}.{part}"))
    for index in range(num_layers):
        layer = Layer(index)
        source, target = f"convs.{index - 1}" if index else "conv1", f"synthesis.layers.{index}"
        entries += _modulated(source, target)
        entries += [
            Entry(f"{source}.noise.weight", f"{target}.noise_strength", _scalar, _vector),
            Entry(f"{source}.activate.bias", f"{target}.bias"),
            Entry(f"noises.noise_{index}", f"{target}.noise"),
        ]
        if not layer.ends_block:
            constants[f"{source}.conv.blur.kernel"] = _kernel(4.0)
            continue
        source = f"to_rgbs.{layer.block - 1}" if index else "to_rgb1"
        target = f"synthesis.to_rgbs.{layer.block}"
        entries += _modulated(source, target)
        entries.append(Entry(f"{source}.bias", f"{target}.bias", _row, _plane))
        if index:
            constants[f"{source}.upsample.kernel"] = _kernel(4.0)
    return KeyMap(layout=GENERATOR, entries=tuple(entries), constants=constants)


def generator_from_state(
    state: Mapping[str, Tensor],
    latent_average: Tensor | None = None,  # [w_dim]
) -> Generator:
    """Builds a generator whose size is read off the tensors.

    Args:
        state: the file's `g_ema`, or a decoder's keys without their prefix. Noise maps, which older
            code did not keep, are drawn from a fixed seed where there are none at all.
        latent_average: the file's `latent_avg`; None computes it from 100,000 mapped samples.

    Raises:
        ValueError: if the keys are not of this layout, with what is wrong; or if the network is
            class-conditional or makes other pictures than RGB.
    """
    maps, convolutions = r"noises\.noise_\d+", r"convs\.\d+\.conv\.weight"
    num_layers = max(count(state, maps), 1 + count(state, convolutions))
    mapping = count(state, r"style\.\d+\.weight")
    counted = [f"convs.{index}.conv.weight" for index in range(1, num_layers - 1, 2)]
    require(state, ["input.input", "style.1.weight", *counted], GENERATOR)
    if num_layers < 3:
        raise ValueError(f"this is no {GENERATOR}: {num_layers} layers, expected 3 or more")
    _check_unconditional(state)
    if (colours := state.get("to_rgb1.conv.weight")) is not None:
        check_colours(colours, axis=1, network=GENERATOR)
    if lacks_noise(state):
        state = {**state, **_drawn_noise(num_layers)}
    w_dim = state[f"style.{mapping}.weight"].shape[0]
    channels = [state["input.input"].shape[1], *(state[key].shape[1] for key in counted)]
    average = torch.zeros(w_dim) if latent_average is None else latent_average
    keymap = generator_keymap(num_layers=num_layers, mapping_layers=mapping)
    generator = keymap.build(
        {**state, "latent_avg": average},
        lambda: Generator(
            resolution=Layer(num_layers - 1).resolution,
            z_dim=state["style.1.weight"].shape[1],
            w_dim=w_dim,
            mapping_layers=mapping,
            mapping_dim=state["style.1.weight"].shape[0],
            channels=channels,
        ),
    )
    if latent_average is None:
        generator.update_average()
    return generator


def lacks_noise(state: Mapping[str, Tensor], prefix: str = "") -> bool:
    """Returns whether the keys behind a prefix hold no noise map at all."""
    return not any(key.startswith(f"{prefix}noises.") for key in state)


def _drawn_noise(num_layers: int) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(NOISE_SEED)
    sides = [Layer(index).resolution for index in range(num_layers)]
    return {
        f"noises.noise_{index}": torch.randn(1, 1, side, side, generator=source)
        for index, side in enumerate(sides)
    }


def _check_unconditional(state: Mapping[str, Tensor]) -> None:
    """Refuses networks that map a class beside z, which the layout has no key to tell."""
    first = state["style.1.weight"]
    embedding = next((key for key in state if _CONDITION.fullmatch(key)), None)
    if embedding is not None:
        raise ValueError(f"this {GENERATOR} is conditional ({one_line(embedding, 80)}), {OTHERS}")
    if first.ndim == 2 and first.shape[1] > first.shape[0]:
        raise ValueError(
            f"this {GENERATOR} is conditional: its mapping network reads {first.shape[1]} numbers "
            f"and goes on with {first.shape[0]}, so that a class goes in beside z; {OTHERS}"
        )


def generator_to_state(generator: Generator) -> tuple[dict[str, Tensor], Tensor]:
    """Converts a generator to `g_ema` and `latent_avg` [w_dim], as copies on the CPU.

    Raises:
        ValueError: if its mapping network has another learning rate, or z is wider than its first
            layer, which this layout cannot say.
    """
    mapping = generator.mapping.layers
    multiplier = generator.mapping.lr_multiplier
    if multiplier != LR_MULTIPLIER:
        raise ValueError(
            f"the mapping network has the learning rate multiplier {multiplier}, this layout "
            f"implies {LR_MULTIPLIER}"
        )
    keymap = generator_keymap(num_layers=generator.num_layers, mapping_layers=len(mapping))
    state = {
        key: value.detach().cpu().clone() for key, value in keymap.to_theirs(generator).items()
    }
    width, z_dim = state["style.1.weight"].shape
    if z_dim > width:
        raise ValueError(
            f"z has {z_dim} numbers and the first layer of the mapping network {width}, which this "
            "layout takes for a condition beside z"
        )
    average = state.pop("latent_avg")
    return state, average


def export_rosinality(generator: Generator, path: str | Path) -> None:
    """Writes `{"g_ema", "latent_avg"}`, complete or not at all. Raises as `generator_to_state`."""
    state, average = generator_to_state(generator)
    with replacing(path) as partial:
        torch.save({"g_ema": state, "latent_avg": average}, partial)


def discriminator_keymap(*, num_blocks: int) -> KeyMap:
    """Returns the table of a discriminator."""
    entries = [
        Entry("convs.0.0.weight", "from_rgb.weight"),
        Entry("convs.0.1.bias", "from_rgb.bias"),
        Entry("final_conv.0.weight", "conv.weight"),
        Entry("final_conv.1.bias", "conv.bias"),
        Entry("final_linear.0.weight", "linear.weight"),
        Entry("final_linear.0.bias", "linear.bias"),
        Entry("final_linear.1.weight", "out.weight"),
        Entry("final_linear.1.bias", "out.bias"),
    ]
    constants = {}
    for block in range(num_blocks):
        source, target = f"convs.{block + 1}", f"blocks.{block}"
        entries += [
            Entry(f"{source}.conv1.0.weight", f"{target}.conv0.weight"),
            Entry(f"{source}.conv1.1.bias", f"{target}.conv0.bias"),
            Entry(f"{source}.conv2.1.weight", f"{target}.conv1.weight"),
            Entry(f"{source}.conv2.2.bias", f"{target}.conv1.bias"),
            Entry(f"{source}.skip.1.weight", f"{target}.skip.weight"),
        ]
        constants[f"{source}.conv2.0.kernel"] = _kernel(1.0)
        constants[f"{source}.skip.0.kernel"] = _kernel(1.0)
    return KeyMap(layout=DISCRIMINATOR, entries=tuple(entries), constants=constants)


def discriminator_from_state(state: Mapping[str, Tensor]) -> Discriminator:
    """Builds a discriminator whose size is read off the tensors. Raises ValueError as above."""
    num_blocks = count(state, r"convs\.\d+\.skip\.1\.weight")
    counted = [f"convs.{block + 1}.skip.1.weight" for block in range(num_blocks)]
    require(state, ["convs.0.0.weight", *counted], DISCRIMINATOR)
    check_colours(state["convs.0.0.weight"], axis=1, network=DISCRIMINATOR)
    if len(out := state.get("final_linear.1.weight", ())) > 1:
        raise ValueError(f"this {DISCRIMINATOR} is conditional: {len(out)} logits, {OTHERS}")
    if not num_blocks:
        raise ValueError(f"this is no {DISCRIMINATOR}: no residual block (convs.1.skip.1.weight)")
    channels = [state["convs.0.0.weight"].shape[0], *(state[key].shape[0] for key in counted)]
    return discriminator_keymap(num_blocks=num_blocks).build(
        state, lambda: Discriminator(resolution=4 << num_blocks, channels=channels[::-1])
    )
