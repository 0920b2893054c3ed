"""e4e and pSp from their official files, `e4e_ffhq_encode.pt` and `psp_ffhq_encode.pt`.

The file holds `state_dict` (`encoder.*`, `decoder.*`), `latent_avg` and `opts`. The two methods
have the same keys, so `opts.encoder_type` tells which it is; all sizes are read off the tensors,
because old files name a wrong one. An old cars file yields 18 codes for a generator of 16 rows, of
which the official scripts keep `codes[:, :16]`: the heads of the last two rows are left out here.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any, Literal

from torch import Tensor

from clcae.encoders.e4e import GradualEncoder
from clcae.encoders.pyramid import Pyramid
from clcae.methods.e4e import E4E, PSP
from clcae.pretrained.frozen import module_entries, trunk_entries
from clcae.pretrained.keymap import Entry, KeyMap, require
from clcae.pretrained.rosinality import generator_from_state, generator_keymap

Kind = Literal["e4e", "psp"]

METHODS: Mapping[str, type[E4E] | type[PSP]] = {"e4e": E4E, "psp": PSP}
KINDS: Mapping[str, Kind] = {"Encoder4Editing": "e4e", "GradualStyleEncoder": "psp"}
DECODER = "decoder."  # prefix of the generator's keys
_HEAD = r"encoder\.styles\.([0-9]{1,4})\..*"


def pyramid_entries(pyramid: Pyramid, *, source: str, target: str) -> list[Entry]:
    """Entries of the trunk and of the two lateral convolutions.

    Args:
        pyramid: of three levels, the coarsest as wide as the trunk.
        source: prefix of the foreign keys, as "encoder.".
        target: prefix of ours, as "pyramid.".
    """
    entries = trunk_entries(pyramid.trunk, source=source, target=f"{target}trunk.")
    for index in (1, 2):
        names = {"source": f"{source}latlayer{index}", "target": f"{target}laterals.{index}"}
        entries += module_entries(pyramid.laterals[index], **names)
    return entries


def encoder_keymap(
    encoder: GradualEncoder, *, layout: str, surplus: Collection[int] = ()
) -> KeyMap:
    """The table of `encoder.*`; heads of the `surplus` rows are ignored."""
    entries = pyramid_entries(encoder.pyramid, source="encoder.", target="pyramid.")
    for row, head in enumerate(encoder.heads):
        entries += module_entries(head, source=f"encoder.styles.{row}", target=f"heads.{row}")
    ignored = tuple(rf"encoder\.styles\.{row}\..*" for row in sorted(surplus))
    return KeyMap(layout=layout, entries=tuple(entries), ignored=ignored)


def e4e_from_state(
    state: Mapping[str, Tensor],
    latent_average: Tensor,  # [R, w_dim] with R rows or more than the generator has, or [w_dim]
    *,
    kind: Kind,
) -> E4E | PSP:
    """The method in evaluation mode, its generator with it; sizes are read off the tensors.

    Args:
        state: the file's `state_dict`.
        latent_average: the file's `latent_avg`; its rows are kept as they are.
        kind: "e4e" or "psp", whose keys are the same.

    Raises:
        ValueError: the keys are not of this layout; the message lists what is wrong.
    """
    if kind not in METHODS:
        raise ValueError(f"kind is {kind!r}, expected 'e4e' or 'psp'")
    layout = f"{kind} file (state_dict)"
    require(state, ["encoder.styles.0.linear.weight", f"{DECODER}input.input"], layout)
    decoder: dict[str, Tensor] = {}
    rest: dict[str, Tensor] = {}
    for key, value in state.items():
        part = decoder if key.startswith(DECODER) else rest
        part[key.removeprefix(DECODER)] = value
    if latent_average.ndim not in (1, 2):
        raise ValueError(
            f"latent_avg has shape {tuple(latent_average.shape)}, expected [rows, 512]"
        )
    rows = latent_average.float().reshape(-1, latent_average.shape[-1])
    same = bool((rows == rows[:1]).all())
    try:
        generator = generator_from_state(decoder, rows[0] if same else rows.mean(dim=0))
    except ValueError as error:
        raise ValueError(f"this is no {layout}, its {DECODER}* do not fit: {error}") from error
    num_rows = generator.num_codes
    if len(rows) != 1 and len(rows) < num_rows:
        raise ValueError(
            f"latent_avg has shape {tuple(latent_average.shape)}, expected {num_rows} rows, "
            f"one for each of a generator of {generator.resolution} pixels"
        )
    method = METHODS[kind](generator=generator)
    heads = {int(match[1]) for key in rest if (match := re.fullmatch(_HEAD, key))}
    surplus = {row for row in heads if row >= num_rows}
    keymap = encoder_keymap(method.encoder, layout=layout, surplus=surplus)
    method.encoder.load_state_dict(keymap.to_ours(rest, method.encoder))
    method.latent_average.copy_(rows[:num_rows])
    return method.eval().requires_grad_(False)


def e4e_from_checkpoint(contents: Mapping[str, Any], *, kind: Kind | None = None) -> E4E | PSP:
    """The method of a whole file.

    Args:
        contents: `state_dict`, `latent_avg` and `opts`. Of `opts` only `encoder_type` is read, and
            `start_from_latent_avg`: where it is False the codes are not measured from the average.
        kind: "e4e" or "psp"; None takes it from `opts.encoder_type`.

    Raises:
        ValueError: something is missing or of another layout, or nothing tells what the file is.
    """
    state, average, opts = (contents.get(key) for key in ("state_dict", "latent_avg", "opts"))
    if not isinstance(state, Mapping) or not isinstance(average, Tensor):
        found = ", ".join(f"{key} ({type(value).__name__})" for key, value in contents.items())
        raise ValueError(
            f"this is no e4e or pSp file: it holds {found[:200] or 'nothing'}, expected state_dict "
            "(dict) and latent_avg (Tensor)"
        )
    opts = opts if isinstance(opts, Mapping) else {}
    if kind is None:
        encoder_type = opts.get("encoder_type")
        if not isinstance(encoder_type, str) or encoder_type not in KINDS:
            raise ValueError(
                f"opts.encoder_type is {encoder_type!r}, expected {' or '.join(KINDS)}: e4e and "
                "pSp have the same keys, so say which it is: kind='e4e' or kind='psp'"
            )
        kind = KINDS[encoder_type]
    method = e4e_from_state(state, average, kind=kind)
    if opts.get("start_from_latent_avg") is False:
        method.latent_average.zero_()
    return method


def e4e_to_checkpoint(method: E4E | PSP) -> dict[str, Any]:
    """The official file's content: `state_dict`, `latent_avg`, and `opts` with its two entries."""
    kind = next(kind for kind, cls in METHODS.items() if cls is type(method))
    keymap = encoder_keymap(method.encoder, layout=kind)
    decoder = generator_keymap(
        num_layers=method.generator.num_layers,
        mapping_layers=len(method.generator.mapping.layers),
    ).to_theirs(method.generator)
    del decoder["latent_avg"]
    return {
        "state_dict": keymap.to_theirs(method.encoder)
        | {f"{DECODER}{key}": value for key, value in decoder.items()},
        "latent_avg": method.latent_average.clone(),
        "opts": {
            "encoder_type": next(name for name, value in KINDS.items() if value == kind),
            "start_from_latent_avg": True,
        },
    }
