"""e4e and pSp from their official files, `e4e_ffhq_encode.pt` and `psp_ffhq_encode.pt`.

The file holds `state_dict` (`encoder.*`, `decoder.*`), `latent_avg` and `opts`. The two methods
have the same keys, so `opts.encoder_type` tells which it is; all sizes are read off the tensors,
because old files name a wrong one. An old cars file yields 18 codes for a generator of 16 rows, of
which the official scripts keep `codes[:, :16]`: the heads of the last two rows are left out here.
"""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from clcae.encoders.e4e import GradualEncoder
from clcae.methods.e4e import E4E, PSP
from clcae.pretrained.keymap import (
    KeyMap,
    empty_for,
    encoder_settings,
    module_entries,
    require,
    section,
    trunk_entries,
)
from clcae.pretrained.rosinality import generator_from_state
from clcae.stylegan2 import Generator

METHODS: Mapping[str, type[E4E] | type[PSP]] = {"e4e": E4E, "psp": PSP}
KINDS = {"Encoder4Editing": "e4e", "GradualStyleEncoder": "psp"}  # opts.encoder_type
DECODER = "decoder."  # prefix of the generator's keys
MOST_ROWS = 32  # of W+ that a file may have heads for, whatever its generator has


def encoder_keymap(encoder: GradualEncoder, *, layout: str, prefix: str = "encoder.") -> KeyMap:
    """Returns the table of the encoder; heads of rows that the generator lacks are ignored."""
    pyramid, rows = encoder.pyramid, len(encoder.heads)
    entries = trunk_entries(pyramid.trunk, source=prefix, target="pyramid.trunk.")
    for index in (1, 2):
        names = {"source": f"{prefix}latlayer{index}", "target": f"pyramid.laterals.{index}"}
        entries += module_entries(pyramid.laterals[index], **names)
    for row, head in enumerate(encoder.heads):
        entries += module_entries(head, source=f"{prefix}styles.{row}", target=f"heads.{row}")
    start = re.escape(prefix)
    surplus = tuple(rf"{start}styles\.{row}\..*" for row in range(rows, MOST_ROWS))
    return KeyMap(layout=layout, entries=tuple(entries), ignored=surplus)


def average_rows(latent_average: Tensor) -> Tensor:
    """Returns `latent_avg` as rows [R, w_dim], one of them where it is a vector.

    Raises:
        ValueError: if it has another number of axes than one or two, or holds no real numbers.
    """
    if latent_average.ndim not in (1, 2):
        raise ValueError(
            f"latent_avg has shape {tuple(latent_average.shape)}, expected [rows, 512]"
        )
    if not latent_average.is_floating_point():
        raise ValueError(f"latent_avg is of {latent_average.dtype}, expected a floating type")
    return latent_average.float().reshape(-1, latent_average.shape[-1])


def check_rows(
    rows: Tensor,  # [R, w_dim], of `average_rows`
    generator: Generator,
) -> None:
    """Raises ValueError unless there is one row, or one or more for each of the generator's."""
    if rows.shape[1] != generator.w_dim:
        raise ValueError(
            f"latent_avg has shape {tuple(rows.shape)}, expected rows of {generator.w_dim} numbers"
        )
    if len(rows) != 1 and len(rows) < generator.num_codes:
        raise ValueError(
            f"latent_avg has shape {tuple(rows.shape)}, expected {generator.num_codes} rows, "
            f"one for each of a generator of {generator.resolution} pixels"
        )


def e4e_from_state(
    state: Mapping[str, Tensor],
    latent_average: Tensor,  # [R, w_dim] with R rows or more than the generator has, or [w_dim]
    *,
    kind: str,
    image_size: int | Sequence[int] | None = None,
) -> E4E | PSP:
    """Builds the method in evaluation mode, its generator with it; copies no tensor of the encoder.

    Args:
        state: the file's `state_dict`.
        latent_average: the file's `latent_avg`; its rows are kept as they are.
        kind: "e4e" or "psp", whose keys are the same.
        image_size: a side or (H, W) of what the encoder reads: (192, 256) for cars, which no tensor
            tells. None is the square of the side that the heads are built for, 256.

    Raises:
        ValueError: if the keys are not of this layout, with what is wrong; or for a size that the
            heads are not built for.
    """
    if kind not in METHODS:
        raise ValueError(f"kind is {kind!r}, expected 'e4e' or 'psp'")
    layout = f"{kind} file (state_dict)"
    require(state, ["encoder.styles.0.linear.weight", f"{DECODER}input.input"], layout)
    rows = average_rows(latent_average)
    same = bool((rows == rows[:1]).all())
    try:
        average = rows[0] if same else rows.mean(dim=0)
        generator = generator_from_state(section(state, DECODER), average)
    except ValueError as error:
        raise ValueError(f"this is no {layout}, its {DECODER}* do not fit: {error}") from error
    check_rows(rows, generator)
    rest = {key: value for key, value in state.items() if not key.startswith(DECODER)}
    require(rest, ["encoder.latlayer1.weight"], layout)
    stem, stages, shape = encoder_settings(rest, image_size, layout)
    method = empty_for(
        rest,
        lambda: METHODS[kind](
            generator=generator,
            image_size=shape,
            stem_channels=stem,
            stages=stages,
            width=rest["encoder.latlayer1.weight"].shape[0],
        ),
    )
    encoder_keymap(method.encoder, layout=layout).fill(method.encoder, rest)
    method.latent_average.copy_(rows[: generator.num_codes])
    return method.eval().requires_grad_(False)
