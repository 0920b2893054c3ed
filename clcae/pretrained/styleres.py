"""StyleRes from its official file, `styleres_ffhq.pt`.

The file holds `e4e` (the encoder's keys without a prefix), `latent_avg` and `generator_smooth`: a
generator in NVIDIA's layout, with E1 and E2 in one of its blocks. That block tells the layer, and
all sizes are read off the tensors. `modify_feature_alignment.dconv3` is ignored by name: the
official module declares it and never calls it. It is not kept, so an export lacks those keys.
"""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from clcae.encoders.styleres import GatedTransform, ResidualBlock, ResidualEncoder
from clcae.methods.styleres import StyleRes
from clcae.pretrained.e4e import average_rows, check_rows, encoder_keymap
from clcae.pretrained.keymap import (
    Entry,
    KeyMap,
    empty_for,
    encoder_settings,
    module_entries,
    require,
)
from clcae.pretrained.nvidia import generator_from_state
from clcae.stylegan2 import Generator, Layer

SECTIONS = ("e4e", "latent_avg", "generator_smooth")
E0 = "StyleRes file (e4e)"
GENERATOR = "StyleRes file (generator_smooth)"
_PART = re.compile(r"synthesis\.b(\d+)\.modify_feature_(alignment|extraction|gates)\..*")


def residual_keymap(parts: nn.ModuleDict, *, layer: Layer) -> KeyMap:
    """Returns the table of E1 and E2, `StyleRes.encoder_modules`, with keys of `generator_smooth`.

    Raises:
        ValueError: if E2 has no gate, which all files of this layout have.
    """
    residual, transform = parts["residual"], parts["transform"]
    assert isinstance(residual, ResidualEncoder)
    if not isinstance(transform, GatedTransform):
        raise ValueError("a StyleRes without a gate (fusion 'sum') has no official layout")
    block = f"synthesis.b{layer.resolution}.modify_feature"
    alignment, extraction = f"{block}_alignment", f"{block}_extraction"
    pairs: list[tuple[str, str]] = [  # theirs, ours
        (f"{alignment}.first_layer", "residual.alignment.first"),
        (f"{alignment}.out_layer", "residual.alignment.last"),
        (f"{extraction}.first_layer", "residual.extraction.0"),
        (f"{block}_gates.down1", "transform.of_own"),
        (f"{block}_gates.down2", "transform.of_residual"),
    ]
    pairs += [
        (f"{alignment}.conv{level + 1}.{index}", f"residual.alignment.down.{level}.{index}")
        for level, blocks in enumerate(residual.alignment.down)
        for index, _ in enumerate(blocks.children())
    ]
    pairs += [
        (f"{alignment}.dconv{level + 1}.{index}", f"residual.alignment.up.{level}.{index}")
        for level, blocks in enumerate(residual.alignment.up)
        for index, _ in enumerate(blocks.children())
    ]
    for index in range(3):
        pairs.append((f"{extraction}.convs.{index}", f"residual.extraction.{index + 1}"))
        pairs.append((f"{block}_gates.convs.{index}", f"transform.delta.{index}"))
        pairs.append((f"{block}_gates.convs2.{index}", f"transform.gate.{index}"))
    entries: list[Entry] = []
    for source, target in pairs:
        part = parts.get_submodule(target)
        if isinstance(part, ResidualBlock):
            entries += _block_entries(part, source=source, target=target)
        else:
            entries += module_entries(part, source=source, target=target)
    unused = rf"{re.escape(alignment)}\.dconv3\..*"
    return KeyMap(layout=GENERATOR, entries=tuple(entries), ignored=(unused,))


def _block_entries(block: ResidualBlock, *, source: str, target: str) -> list[Entry]:
    names = {"conv0": "res_layer.0", "conv1": "res_layer.2", "shortcut": "shortcut_layer.0"}
    entries = []
    for name, part in block.named_children():
        both = {"source": f"{source}.{names[name]}", "target": f"{target}.{name}"}
        entries += module_entries(part, **both)
    return entries


def styleres_from_states(
    e4e: Mapping[str, Tensor],
    latent_average: Tensor,  # [R, w_dim] with R rows or more than the generator has, or [w_dim]
    generator_smooth: Mapping[str, Tensor],
    *,
    image_size: int | Sequence[int] | None = None,
) -> StyleRes:
    """Builds the method in evaluation mode; copies no tensor but those of the generator.

    Args:
        e4e: the file's `e4e`.
        latent_average: the file's `latent_avg`; its rows are kept as they are.
        generator_smooth: the file's `generator_smooth`.
        image_size: a side or (H, W) of what the encoder reads: (192, 256) for cars, which no tensor
            tells. None is the square of the side that the heads are built for, 256.

    Raises:
        ValueError: if the keys are not of this layout, with what is wrong; or for a size that the
            heads are not built for.
    """
    modifying = {key: value for key, value in generator_smooth.items() if _PART.fullmatch(key)}
    plain = {key: value for key, value in generator_smooth.items() if key not in modifying}
    generator = _generator(plain)
    layer = _layer(modifying, generator)
    first = f"synthesis.b{layer.resolution}.modify_feature_extraction.first_layer.weight"
    require(modifying, [first], GENERATOR)
    require(e4e, ["latlayer1.weight"], E0)
    stem, stages, shape = encoder_settings(e4e, image_size, E0, prefix="")
    rows = average_rows(latent_average)
    check_rows(rows, generator)
    method = empty_for(
        {**e4e, **modifying},
        lambda: StyleRes(
            generator=generator,
            image_size=shape,
            layer=layer.name,
            stem_channels=stem,
            stages=stages,
            width=e4e["latlayer1.weight"].shape[0],
            residual_width=modifying[first].shape[0],
            fusion="gate",
        ),
    )
    encoder_keymap(method.encoder, layout=E0, prefix="").fill(method.encoder, e4e)
    parts = nn.ModuleDict(method.encoder_modules())
    residual_keymap(parts, layer=layer).fill(parts, modifying)
    method.latent_average.copy_(rows[: generator.num_codes])
    return method.eval().requires_grad_(False)


def _generator(state: Mapping[str, Tensor]) -> Generator:
    try:
        return generator_from_state(state)
    except ValueError as error:
        raise ValueError(f"this is no {GENERATOR}: {error}") from error


def _layer(modifying: Mapping[str, Tensor], generator: Generator) -> Layer:
    """Finds the layer before E1 and E2: the first of the block that has them."""
    sides = sorted({int(match[1]) for key in modifying if (match := _PART.fullmatch(key))})
    if len(sides) != 1:
        raise ValueError(
            f"this is no {GENERATOR}: {len(sides)} blocks with modify_feature_*, expected one"
        )
    return generator.layer(f"{sides[0]}x{sides[0]}/0")
