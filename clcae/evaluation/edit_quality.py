"""Edits measured: every direction at every strength, on every picture, in every space.

The inputs are inverted once a method; what is compared with the edited picture is the same
method's unedited reconstruction, so that bad reconstruction is not taken for a bad edit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from clcae.data.sources import ImageSource
from clcae.data.transforms import at_input_size
from clcae.methods.interface import InversionMethod, Move
from clcae.metrics.editing import EditEffect, EditQuality, Judgement
from clcae.metrics.moments import Moments

Judge = Callable[[Tensor], Judgement]  # images [N, 3, H, W] in [-1, 1]


@dataclass(frozen=True)
class EditRow:
    """The effect of one direction at one strength on the pictures of one method."""

    method: str
    direction: str
    strength: float
    effect: EditEffect

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for a file."""
        fields = asdict(self)
        effect = fields.pop("effect")
        return {**fields, **effect}


@torch.inference_mode()
def measure_edits(
    methods: Mapping[str, InversionMethod],
    source: ImageSource,
    *,
    directions: Mapping[str, Callable[[float], Move]],
    strengths: Sequence[float],
    judge: Judge,
    attributes: Sequence[str],
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> list[EditRow]:
    """Measures edits of all pictures of a source.

    Args:
        methods: What inverts and edits, by the name of its rows.
        source: The pictures, as large as the methods read them.
        directions: Attribute that is meant -> the move of a strength.
        strengths: Of every direction; 0 is the reconstruction compared with itself.
        judge: Attributes and identity embeddings of pictures.
        attributes: Names of the judged attributes, in the order of their columns.
        batch_size: Pictures at once; values do not depend on it.
        device: Where methods and judge are.
        progress: Called with the number of edited batches done and of all.

    Returns:
        Rows in the order of methods, directions, strengths.

    Raises:
        ValueError: If a direction is called like no attribute, or there is nothing to measure.
    """
    if unknown := sorted(set(directions) - set(attributes)):
        raise ValueError(f"directions {unknown} are no judged attributes ({', '.join(attributes)})")
    if not methods or not directions or not strengths or len(source) < 2:
        raise ValueError(
            f"{len(methods)} methods, {len(directions)} directions, {len(strengths)} strengths, "
            f"{len(source)} pictures: nothing to measure"
        )
    qualities = {
        (method, direction, strength): EditQuality(
            num_attributes=len(attributes),
            target=list(attributes).index(direction),
            sign=(strength > 0) - (strength < 0),
        )
        for method in methods
        for direction in directions
        for strength in strengths
    }
    spread = Moments(dimension=len(attributes))
    total, done = -(-len(source) // batch_size) * len(qualities), 0
    for images in _batches(source, batch_size, device):
        judged = judge(images)
        spread.update(judged.attributes)
        for name, method in methods.items():
            inversion = method.invert(images)
            plain = judge(at_input_size(method.synthesize(inversion), images.shape[-2:]))
            for direction, move in directions.items():
                for strength in strengths:
                    edited = method.synthesize(method.edit(inversion, move(strength)))
                    after = judge(at_input_size(edited, images.shape[-2:]))
                    qualities[name, direction, strength].update(after, plain, judged)
                    done += 1
                    if progress is not None:
                        progress(done, total)
    deviations = (spread.scatter.diagonal() / spread.count).sqrt()
    return [EditRow(*key, quality.compute(deviations)) for key, quality in qualities.items()]


def _batches(source: ImageSource, batch_size: int, device: torch.device | str) -> Iterator[Tensor]:
    for start in range(0, len(source), batch_size):
        yield source.images(range(start, min(start + batch_size, len(source)))).to(device)
