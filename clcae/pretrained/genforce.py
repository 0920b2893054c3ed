"""Generators in the layout of GenForce (genforce/genforce, and the code of F/Z+ and BDInvert).

Layers are numbered as ours. Against rosinality's layout the kernels of upsampling convolutions are
flipped, and the bias of a style is stored without the one that the layer adds.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from clcae.ops import low_pass
from clcae.pretrained.keymap import Entry, KeyMap, check_colours, count, require
from clcae.stylegan2 import Generator, Layer

GENERATOR = "GenForce generator (generator_smooth)"


def _drop_axis(tensor: Tensor) -> Tensor:
    return tensor.squeeze(0)


def _add_axis(tensor: Tensor) -> Tensor:
    return tensor.unsqueeze(0)


def _flipped(tensor: Tensor) -> Tensor:
    return tensor.flip(2, 3)


def _plus_one(tensor: Tensor) -> Tensor:
    return tensor + 1.0


def _minus_one(tensor: Tensor) -> Tensor:
    return tensor - 1.0


def generator_keymap(*, num_layers: int, mapping_layers: int) -> KeyMap:
    """Returns the table of a generator."""
    entries = [
        Entry("truncation.w_avg", "w_average"),
        Entry("synthesis.early_layer.const", "synthesis.const", _drop_axis, _add_axis),
    ]
    for index in range(mapping_layers):
        for part in ("weight", "bias"):
            entries.append(Entry(f"mapping.dense{index}.{part}", f"mapping.layers.{index}.{part}"))
    taps = low_pass()
    kernel = (torch.outer(taps, taps) * 4.0)[None, None]
    constants = {"synthesis.upsample.kernel": kernel}
    for index in range(num_layers):
        layer = Layer(index)
        source, target = f"synthesis.layer{index}", f"synthesis.layers.{index}"
        if layer.ends_block:
            entries.append(Entry(f"{source}.weight", f"{target}.weight"))
            output = f"synthesis.output{layer.block}", f"synthesis.to_rgbs.{layer.block}"
            entries += [Entry(f"{output[0]}.{part}", f"{output[1]}.{part}") for part in _PLAIN]
            entries += _style(*output)
        else:
            entries.append(Entry(f"{source}.weight", f"{target}.weight", _flipped, _flipped))
            constants[f"{source}.filter.kernel"] = kernel
        entries += [
            Entry(f"{source}.{part}", f"{target}.{part}")
            for part in ("bias", "noise_strength", "noise")
        ]
        entries += _style(source, target)
    return KeyMap(layout=GENERATOR, entries=tuple(entries), constants=constants)


_PLAIN = ("weight", "bias")


def _style(source: str, target: str) -> list[Entry]:
    return [
        Entry(f"{source}.style.weight", f"{target}.affine.weight"),
        Entry(f"{source}.style.bias", f"{target}.affine.bias", _plus_one, _minus_one),
    ]


def generator_from_state(state: Mapping[str, Tensor]) -> Generator:
    """Builds a generator whose size is read off the tensors.

    Raises:
        ValueError: if the keys are not of this layout, with what is wrong; for StyleGAN, which has
            the same names of the mapping network; or if it makes other pictures than RGB.
    """
    num_layers = count(state, r"synthesis\.layer\d+\.noise_strength")
    mapping = count(state, r"mapping\.dense\d+\.weight")
    if any(re.search(r"\.(epilogue|style_mod|apply_noise)\.", key) for key in state):
        raise ValueError("this is a generator of StyleGAN, only those of StyleGAN2 are supported")
    counted = [f"synthesis.layer{index}.weight" for index in range(0, num_layers, 2)]
    require(state, ["mapping.dense0.weight", "synthesis.early_layer.const", *counted], GENERATOR)
    if num_layers < 3 or num_layers % 2 == 0:
        raise ValueError(f"this is no {GENERATOR}: {num_layers} layers, expected 3 or more, odd")
    if (colours := state.get("synthesis.output0.weight")) is not None:
        check_colours(colours, axis=0, network=GENERATOR)
    return generator_keymap(num_layers=num_layers, mapping_layers=mapping).build(
        state,
        lambda: Generator(
            resolution=Layer(num_layers - 1).resolution,
            z_dim=state["mapping.dense0.weight"].shape[1],
            w_dim=state[f"mapping.dense{mapping - 1}.weight"].shape[0],
            mapping_layers=mapping,
            mapping_dim=state["mapping.dense0.weight"].shape[0],
            channels=[state[key].shape[0] for key in counted],
        ),
    )
