"""IDInvert's encoders from their official files, `styleganinv_ffhq256_encoder.pth` and its kin.

The file is the state dict of `StyleGANEncoderNet` with batch norm. Its generator,
`styleganinv_ffhq256_generator.pth`, is StyleGAN1 with a mapping for every layer and is not
supported: the encoder is put before a StyleGAN2 generator with as many rows, to be trained on.
All sizes are read off the tensors. The weight of the last layer takes up the factor
1 / sqrt(inputs), which the official code applies at run time.
"""

import math
from collections.abc import Mapping

from torch import Tensor, nn

from clcae.encoders.in_domain import LAST_SIDE, DomainGuidedEncoder
from clcae.methods.in_domain import InDomain
from clcae.pretrained.keymap import Entry, KeyMap, count, empty_for, module_entries, require
from clcae.stylegan2 import Generator

ENCODER = "encoder of IDInvert (styleganinv_*_encoder.pth)"


def encoder_keymap(encoder: DomainGuidedEncoder) -> KeyMap:
    """Returns the table of an encoder's file."""
    entries = _convolution_entries("block0", "", encoder.first, "first")
    for index, block in enumerate(encoder.blocks):
        theirs, ours = f"block{index + 1}", f"blocks.{index}"
        for name, number in (("conv0", "1"), ("conv1", "2"), ("shortcut", "")):
            part = getattr(block, name)
            if part is not None:
                entries += _convolution_entries(theirs, number, part, f"{ours}.{name}")
    last, linear = f"block{len(encoder.blocks) + 1}", encoder.last[0]
    assert isinstance(linear, nn.Linear)
    factor = math.sqrt(linear.in_features)
    entries.append(
        Entry(
            f"{last}.fc.weight",
            "last.0.weight",
            to_ours=lambda weight: weight / factor,
            to_theirs=lambda weight: weight * factor,
        )
    )
    entries += module_entries(encoder.last[1], source=f"{last}.bn.bn", target="last.1")
    return KeyMap(layout=ENCODER, entries=tuple(entries))


def _convolution_entries(block: str, number: str, part: nn.Module, target: str) -> list[Entry]:
    """Lists a convolution, its bias, which lies beside it, and its batch norm."""
    conv, norm = part.get_submodule("0"), part.get_submodule("1")
    entries = [Entry(f"{block}.conv{number}.weight", f"{target}.0.weight")]
    if isinstance(conv.bias, Tensor):
        entries.append(Entry(f"{block}.wscale{number}.bias", f"{target}.0.bias"))
    return entries + module_entries(norm, source=f"{block}.bn{number}.bn", target=f"{target}.1")


def in_domain_from_state(state: Mapping[str, Tensor], generator: Generator) -> InDomain:
    """Builds the method in evaluation mode around a generator; copies the last weight alone.

    Raises:
        ValueError: if the keys are not of this layout, with what is wrong, or the generator has
            another number of rows.
    """
    blocks = count(state, r"block\d+\.conv2\.weight")
    first, before, last = "block0.conv", f"block{blocks}.conv2", f"block{blocks + 1}.fc"
    require(state, [f"{name}.weight" for name in (first, before, last)], ENCODER)
    numbers, wanted = state[f"{last}.weight"].shape[0], generator.num_codes * generator.w_dim
    if numbers != wanted:
        raise ValueError(
            f"its codes have {numbers} numbers, those of the generator given with it {wanted} "
            f"({generator.num_codes} rows of {generator.w_dim}): expected a generator of "
            f"{LAST_SIDE << blocks} pixels"
        )
    method = empty_for(
        state,
        lambda: InDomain(
            generator=generator,
            image_size=LAST_SIDE << blocks,
            width=state[f"{first}.weight"].shape[0],
            max_width=state[f"{before}.weight"].shape[0],
        ),
    )
    encoder_keymap(method.encoder).fill(method.encoder, state)
    return method.eval().requires_grad_(False)
