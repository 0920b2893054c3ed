"""From scored samples to calibrated directions: InterFaceGAN's steps in a row, each measured.

The boundary of each attribute is a linear SVM's on the extremes. Others can be projected off: their
boundaries, as in the paper (section 3.3), or the gradients of the linear functions that fit them
best by least squares. A code that moves orthogonally to such a gradient keeps what is linear in the
other attribute, and it is found from all samples where a boundary knows the extremes alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from torch import Tensor

from clcae.stylegan2 import Generator, LatentSpace
from editing.calibration import Judge, account, by_width, calibrated, width_of
from editing.directions import Direction
from editing.interfacegan import SHARE, Boundary, conditional, least_squares, train_boundary
from editing.samples import Samples

Off = Literal["boundaries", "gradients"]


def find_directions(
    samples: Samples,
    wanted: Sequence[str],
    *,
    space: LatentSpace,
    conditions: Sequence[str] | None = (),
    off: Off = "boundaries",
    share: float = SHARE,
    invalid: float | None = None,
    seed: int = 0,
) -> dict[str, Direction]:
    """Directions of some attributes; strength 1 is one width of the latent space along each.

    Args:
        samples: codes of `space` with their scores.
        wanted: names of attributes.
        space: of the codes.
        conditions: attributes to project off; a direction's own is passed over. None: all others.
        off: what stands for them.
        share: extremes on either side, see `train_boundary`.
        invalid: a score that marks a sample as not scored.
        seed: of the split into training and held-out extremes.

    Raises:
        ValueError: an attribute is unknown, its scores are all alike, or the conditions leave
            nothing of a boundary.
        ImportError: scikit-learn is missing.
    """
    boundaries: dict[str, Boundary] = {}

    def boundary(name: str) -> Boundary:
        if name not in boundaries:
            scores = samples.scores[:, samples.column(name)]
            boundaries[name] = train_boundary(
                samples.codes, scores, share=share, invalid=invalid, seed=seed
            )
        return boundaries[name]

    def normal(name: str) -> Tensor:
        if off == "boundaries":
            return boundary(name).normal
        scores = samples.scores[:, samples.column(name)]
        valid = scores.isfinite() if invalid is None else scores.isfinite() & (scores != invalid)
        fitted = least_squares(samples.codes[valid].flatten(1), scores[valid])
        return fitted.reshape(boundary(wanted[0]).normal.shape)

    found = {}
    for name in wanted:
        own = boundary(name)
        others = [o for o in (samples.names if conditions is None else conditions) if o != name]
        vector = conditional(own.normal, [normal(other) for other in others])
        direction = Direction(
            name=name,
            vector=vector,
            space=space,
            provenance={
                "method": "InterFaceGAN",
                "conditions": others,
                "off": off if others else None,
                "samples": len(samples.codes),
                "extremes": own.num_extremes,
                "held_out_accuracy": own.accuracy,
                "rest_accuracy": own.accuracy_rest,
                "cosine_to_boundary": float((vector * own.normal).sum()),
            },
        )
        found[name] = by_width(direction, width_of(samples.codes, vector))
    return found


def measured(
    generator: Generator,
    direction: Direction,
    samples: Samples,
    *,
    judge: Judge,
    embed: Judge | None,
    codes: Tensor,  # [N, D] or [N, L, D]: to calibrate on, and as many again to measure on
) -> Direction:
    """The direction calibrated by a judge, with the account of what a unit of it does.

    Calibrated on the first half of the codes and accounted for on the second.

    Raises:
        ValueError: the attribute does not respond to the direction.
    """
    first, second = codes.chunk(2)
    attribute = samples.attribute(direction.name)
    scaled = calibrated(
        generator,
        direction,
        attribute,
        codes=first,
        width=width_of(samples.codes, direction.vector),
        judge=judge,
    )
    others = [samples.attribute(name) for name in samples.names if name != direction.name]
    figures = account(generator, scaled, attribute, others, codes=second, judge=judge, embed=embed)
    return replace(scaled, provenance={**scaled.provenance, **figures})


def largest_leaks(
    generator: Generator,
    ways: Mapping[str, Direction],
    samples: Samples,
    *,
    unit: float,
    judge: Judge,
    codes: Tensor,  # [N, D] or [N, L, D]
) -> dict[str, float]:
    """By way of finding one direction: its largest leak for one deviation of its own attribute.

    Args:
        generator: that draws.
        ways: the direction as found in several ways, of equal length.
        samples: that they were found from.
        unit: length at which all of them are compared.
        judge: of the samples.
        codes: of the same space.
    """
    found = {}
    for way, direction in ways.items():
        others = [samples.attribute(name) for name in samples.names if name != direction.name]
        figures = account(
            generator,
            replace(direction, unit=unit),
            samples.attribute(direction.name),
            others,
            codes=codes,
            judge=judge,
        )
        found[way] = figures["largest_leak"] / abs(figures["change"])
    return found
