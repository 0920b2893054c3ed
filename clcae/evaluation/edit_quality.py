"""Quality of edits: attribute change, leakage into other attributes, identity kept.

The axes of the field's curves (attribute change against identity kept; GAN inversion surveys and
StyleRes, arXiv 2212.14359, section 4.3): here every number is defined in words by `PROTOCOL`. An
edited picture is compared with the same method's unedited reconstruction, so that bad
reconstruction is not taken for a bad edit. Deviation: attributes are continuous judgements, so a
change is counted in standard deviations of the attribute over the inputs instead of in classifier
accuracy.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from clcae.data.sources import ImageSource
from clcae.data.transforms import at_input_size
from clcae.methods.interface import Inversion, InversionMethod
from clcae.metrics.identity import cosine_similarity
from clcae.metrics.moments import Moments

# Edits an inversion by a method, at a strength.
Edit = Callable[[InversionMethod, Inversion, float], Inversion]

PROTOCOL = {
    "change": "mean change of the edited attribute, in standard deviations over the inputs",
    "right way": "share of pictures whose edited attribute moves the way of the strength",
    "leakage": "mean absolute change of the other attributes, in standard deviations over the "
    "inputs, averaged over them",
    "identity": "mean cosine with the unedited reconstruction",
    "identity with input": "mean cosine with the input",
}


@dataclass(frozen=True)
class Judgement:
    """Attributes and identity embeddings that judges find in a batch of pictures."""

    attributes: Tensor  # [N, A]
    embeddings: Tensor  # [N, D], of identity


@dataclass(frozen=True)
class EditRow:
    """The effect of one direction at one strength on one method: means, as `PROTOCOL` says."""

    method: str
    direction: str
    strength: float
    count: int
    change: float
    right_way: float  # NaN for an edit of no strength
    leakage: float
    identity: float
    identity_with_input: float
    shifts: tuple[float, ...]  # of every attribute, signed, in standard deviations


@torch.inference_mode()
def measure_edits(
    methods: Mapping[str, InversionMethod],
    source: ImageSource,
    *,
    directions: Mapping[str, Edit],
    strengths: Sequence[float],
    judge: Callable[[Tensor], Judgement],
    attributes: Sequence[str],
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[EditRow]:
    """Measures every direction at every strength on every picture by every method.

    Args:
        methods: what inverts and edits, by the name of its rows.
        source: the pictures, as large as the methods read them.
        directions: attribute that is meant -> the edit along its direction.
        strengths: of every direction; 0 is the reconstruction compared with itself.
        judge: images [N, 3, H, W] in [-1, 1] to their judgement.
        attributes: names of the judged attributes, in the order of their columns.
        batch_size: pictures at once; values do not depend on it.
        device: where methods and judge are.
        progress: called with the number of edited batches done and of all.

    Returns:
        Rows in the order of methods, directions, strengths.

    Raises:
        ValueError: if a direction is called like no attribute, an attribute does not vary, a
            judgement is not finite, or there is nothing to measure.
    """
    if unknown := sorted(set(directions) - set(attributes)):
        raise ValueError(f"directions {unknown} are no judged attributes ({', '.join(attributes)})")
    if not methods or not directions or not strengths or len(source) < 2 or len(attributes) < 2:
        raise ValueError(
            f"{len(methods)} methods, {len(directions)} directions, {len(strengths)} strengths, "
            f"{len(source)} pictures, {len(attributes)} attributes: nothing to measure"
        )
    effects = {
        key: Moments(dimension=2 * len(attributes) + 3)
        for key in product(methods, directions, strengths)
    }
    spread = Moments(dimension=len(attributes))
    total, done = -(-len(source) // batch_size) * len(effects), 0
    for start in range(0, len(source), batch_size):
        batch = range(start, min(start + batch_size, len(source)))
        images = source.images(batch).to(device)
        judged = judge(images)
        spread.update(judged.attributes)
        for name, method in methods.items():
            inversion = method.invert(images)
            plain = judge(at_input_size(method.synthesize(inversion), images.shape[-2:]))
            for direction, strength in product(directions, strengths):
                edited = method.synthesize(directions[direction](method, inversion, strength))
                after = judge(at_input_size(edited, images.shape[-2:]))
                difference = (after.attributes - plain.attributes).detach().cpu().double()
                target = list(attributes).index(direction)
                right = (difference[:, target] * strength > 0).double()
                cosines = [
                    cosine_similarity(after.embeddings, other.embeddings)
                    for other in (plain, judged)
                ]
                columns = [difference, difference.abs(), torch.stack([right, *cosines], dim=1)]
                effects[name, direction, strength].update(torch.cat(columns, dim=1))
                done += 1
                progress(done, total)
    deviations = (spread.scatter.diagonal() / spread.count).sqrt()
    if not (deviations > 0).all():
        raise ValueError(f"deviations of the attributes are {deviations.tolist()}: expected > 0")
    return [_row(*key, effect, attributes, deviations) for key, effect in effects.items()]


def _row(
    method: str,
    direction: str,
    strength: float,
    effect: Moments,
    attributes: Sequence[str],
    deviations: Tensor,
) -> EditRow:
    count = len(attributes)
    signed, absolute, means = effect.mean.split([count, count, 3])
    target = list(attributes).index(direction)
    others = torch.arange(count) != target
    return EditRow(
        method=method,
        direction=direction,
        strength=strength,
        count=effect.count,
        change=float((signed / deviations)[target]),
        right_way=float(means[0]) if strength else float("nan"),
        leakage=float((absolute / deviations)[others].mean()),
        identity=float(means[1]),
        identity_with_input=float(means[2]),
        shifts=tuple((signed / deviations).tolist()),
    )
