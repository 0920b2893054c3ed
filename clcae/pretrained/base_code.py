"""The base-code encoder of F/Z+ and BDInvert from its official file, `{"encoder": ...}`."""

from collections.abc import Mapping

from torch import Tensor

from clcae.encoders.base_code import CONVOLUTIONS, BaseCodeEncoder
from clcae.pretrained.keymap import KeyMap, empty_for, module_entries, require

BASE_CODE = "base-code encoder (encoder)"
SIDE = 16  # of the feature; official files have no other
FIRST, LAST = "model.0.weight", 3 * CONVOLUTIONS + 1  # key, and modules of a stage


def encoder_keymap(encoder: BaseCodeEncoder) -> KeyMap:
    """Returns the table of `encoder_simple`."""
    entries = module_entries(encoder.layers, source="model", target="layers")
    return KeyMap(layout=BASE_CODE, entries=tuple(entries))


def base_code_from_state(state: Mapping[str, Tensor]) -> BaseCodeEncoder:
    """Builds the encoder, whose stages are read off the tensors; its feature is 16 x 16.

    Raises:
        ValueError: if the keys are not of this layout, with what is wrong.
    """
    require(state, [FIRST], BASE_CODE)
    widths: list[int] = []
    while (key := f"model.{LAST * len(widths)}.weight") in state and (
        f"model.{LAST * len(widths) + 6}.weight" in state  # its third convolution
    ):
        widths.append(state[key].shape[0])
    out = f"model.{LAST * len(widths) + 3}.weight"
    require(state, [out], BASE_CODE)
    made = empty_for(
        state,
        lambda: BaseCodeEncoder(
            image_size=SIDE << len(widths), widths=widths, out_channels=state[out].shape[0]
        ),
    )
    copies = {key: tensor.clone() for key, tensor in state.items()}
    return encoder_keymap(made).fill(made, copies).eval()
