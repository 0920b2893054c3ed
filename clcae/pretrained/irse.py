"""IR and IR-SE trunks in the layout of the pSp family's files: `input_layer` and `body`."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from clcae.data.transforms import height_and_width
from clcae.nn.trunk import ResidualUnit, SqueezeExcitation, Trunk
from clcae.pretrained.keymap import Entry, count, module_entries, require


def trunk_entries(trunk: Trunk, *, source: str, target: str) -> list[Entry]:
    """Lists the entries of a trunk, with the prefixes of the foreign keys and of ours.

    Which units have gates and shortcuts is read off the trunk.
    """
    entries = []
    for index, part in enumerate(trunk.stem):
        names = {"source": f"{source}input_layer.{index}", "target": f"{target}stem.{index}"}
        entries += module_entries(part, **names)
    units = [
        (f"{target}stages.{stage}.{name}", unit)
        for stage, children in enumerate(trunk.stages)
        for name, unit in children.named_children()
    ]
    for body, (ours, unit) in enumerate(units):
        assert isinstance(unit, ResidualUnit)
        theirs = f"{source}body.{body}"
        for index, name in enumerate(("norm0", "conv0", "act", "conv1", "norm1")):
            names = {"source": f"{theirs}.res_layer.{index}", "target": f"{ours}.{name}"}
            entries += module_entries(unit.get_submodule(name), **names)
        if isinstance(unit.gates, SqueezeExcitation):
            for part_name, name in (("fc1", "reduce"), ("fc2", "expand")):
                source_key = f"{theirs}.res_layer.5.{part_name}.weight"
                entries.append(Entry(source_key, f"{ours}.gates.{name}.weight"))
        if unit.shortcut is not None:
            names = {"source": f"{theirs}.shortcut_layer", "target": f"{ours}.shortcut"}
            entries += module_entries(unit.shortcut, **names)
    return entries


def encoder_settings(
    state: Mapping[str, Tensor], image_size: int | Sequence[int] | None, layout: str
) -> tuple[int, list[tuple[int, int]], tuple[int, int]]:
    """Reads stem channels, (channels, units) of the stages and the input's (H, W) off `encoder.*`.

    `image_size` is what the caller wants; None is the square that the first head is built for.

    Raises:
        ValueError: if keys of the trunk or of the first head are missing, or for a size that the
            head is not built for.
    """
    units = count(state, r"encoder\.body\.\d+\.res_layer\.3\.weight")
    halvings = count(state, r"encoder\.styles\.0\.convs\.\d+\.weight")
    widths = [f"encoder.body.{unit}.res_layer.3.weight" for unit in range(units)]
    stem = "encoder.input_layer.0.weight"
    require(state, [stem, "encoder.styles.0.linear.weight", *widths], layout)
    stages: list[tuple[int, int]] = []
    for unit, key in enumerate(widths):
        # The first stage is as wide as the stem and has no shortcut to tell where it begins.
        begins = unit == 0 or f"encoder.body.{unit}.shortcut_layer.0.weight" in state
        units_before = 0 if begins else stages.pop()[1]
        stages.append((state[key].shape[0], units_before + 1))
    side = (1 << halvings) << len(stages)
    shape = height_and_width(side if image_size is None else image_size)
    if max(shape) != side:
        raise ValueError(f"image_size is {image_size}, the heads of this file are for {side}")
    return state[stem].shape[0], stages, shape
