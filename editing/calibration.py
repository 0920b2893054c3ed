"""Calibration: the unit, range and leaks of a direction, measured by a judge.

The unit becomes the length that changes the attribute by one standard deviation of it over samples
(for a binary attribute: that carries 95 % of the pictures to the other side), and the range is
where the attribute still responds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from clcae.stylegan2 import Generator
from editing.directions import Direction
from editing.editor import moved_pictures
from editing.samples import Attribute, Judge, Samples

Scores = Callable[[Direction, Sequence[float]], Tensor]  # of an attribute, [S, N]

CROSSED = 0.95  # share of the pictures that a unit of a binary attribute carries over
FARTHEST = 3.0  # limit of a range, in standard deviations of the latent distribution
LEAST_RESPONSE = 0.2  # of a unit's change; below it the attribute of a picture has saturated
RESPONDING = 0.05  # least share of unsaturated pictures: a strong beard is one in twenty
LARGEST = 5.0  # limit of a range, as a strength
STEP = 0.25  # ranges end at multiples of it
_SCAN = 24  # lengths tried to find a unit


@torch.no_grad()
def judged(
    generator: Generator,
    direction: Direction,
    codes: Tensor,  # [N, D], or rows [N, L, D], in the direction's space
    strengths: Sequence[float],
    judge: Judge,
) -> Tensor:
    """Judges the pictures of every code at every strength: [S, N, A]."""
    found = []
    for strength in strengths:
        pictures = moved_pictures(generator, direction, codes, strength)
        found.append(torch.cat([judge(part.clamp(-1, 1)).cpu() for part in pictures]))
    return torch.stack(found)


def calibrated(
    generator: Generator,
    direction: Direction,
    attribute: Attribute,
    *,
    codes: Tensor,  # [N, D] or [N, L, D], samples of the direction's space
    width: float,  # standard deviation of that space along the vector, in lengths of it
    judge: Judge,
) -> Direction:
    """Measures unit, range and meaning of a direction on samples.

    Raises:
        ValueError: if the attribute does not respond to the direction.
    """

    def scores(direction: Direction, strengths: Sequence[float]) -> Tensor:
        return judged(generator, direction, codes, strengths, judge)[..., attribute.column]

    unit = _unit(replace(direction, unit=1.0), attribute, width, scores)
    scaled = replace(direction, unit=unit, default=1.0)
    strengths = _range(scaled, attribute, min(LARGEST, FARTHEST * width / unit), scores)
    meaning = (
        f"carries {CROSSED:.0%} of the pictures to the other side of {attribute.name}"
        if attribute.binary
        else f"one standard deviation of {attribute.name} ({attribute.deviation:.3g})"
    )
    return replace(scaled, strengths=strengths, default=min(1.0, strengths[1]), meaning=meaning)


def _unit(raw: Direction, attribute: Attribute, width: float, scores: Scores) -> float:
    """Finds the shortest length, by linear interpolation, that has the effect of one unit."""
    wanted = CROSSED if attribute.binary else attribute.deviation
    before, last = 0.0, 0.0
    (start,) = scores(raw, [0.0])
    for length in torch.linspace(0, 6 * width, _SCAN + 1)[1:].tolist():
        down, up = scores(raw, [-length, length])
        effect = _crossed(start, down, up) if attribute.binary else float((up - down).mean()) / 2
        if effect >= wanted:
            return last + (length - last) * (wanted - before) / (effect - before)
        before, last = effect, length
    raise ValueError(
        f"direction {raw.name}: {attribute.name} changes by {before:.3g} over {last:.3g}, less "
        f"than the {wanted:.3g} of a unit; the direction does not move this attribute"
    )


def _crossed(start: Tensor, down: Tensor, up: Tensor) -> float:
    """Computes the lower of two shares: of low scores that rise above 0.5, of high ones that fall.

    A side without pictures counts as crossed.
    """
    shares = [
        float((moved > 0.5).eq(upwards).float().mean()) if len(moved) else 1.0
        for moved, upwards in ((up[start <= 0.5], True), (down[start > 0.5], False))
    ]
    return min(shares)


def _range(
    scaled: Direction, attribute: Attribute, limit: float, scores: Scores
) -> tuple[float, float]:
    """Finds how far the attribute responds either way, at least one step and at most the limit.

    It responds as long as some pictures do: a beard can be removed from those who have one, however
    many have none.
    """
    ends = []
    for sign in (-1.0, 1.0):
        grid = [sign * STEP * k for k in range(int(limit / STEP) + 1)]
        end = grid[-1]
        if not attribute.binary:
            steps = sign * scores(scaled, grid).diff(dim=0)  # [S - 1, N]
            least = LEAST_RESPONSE * STEP * attribute.deviation
            weak = ((steps >= least).float().mean(dim=1) < RESPONDING).nonzero()[:, 0]
            end = grid[int(weak[0])] if len(weak) else end
        ends.append(sign * max(abs(end), STEP))
    return ends[0], ends[1]


def account(
    generator: Generator,
    direction: Direction,
    attribute: Attribute,
    others: Sequence[Attribute],
    *,
    codes: Tensor,  # [N, D] or [N, L, D]
    judge: Judge,
    embed: Judge | None = None,  # images -> unit embeddings; None: identity is not measured
) -> dict[str, Any]:
    """Measures what a unit of the direction changes on average: half of the change from -1 to +1.

    Returns:
        "change" of the attribute, in its standard deviations; "leaks", the changes of the other
        attributes in theirs, by name; "largest_leak"; and with an embedder "identity", the mean
        cosine of the embeddings at -1 and at +1 to those of the unmoved codes.
    """
    down, up = judged(generator, direction, codes, [-1.0, 1.0], judge)
    change = ((up - down) / 2).mean(dim=0)
    leaks = {o.name: float(change[o.column]) / o.deviation for o in others}
    found: dict[str, Any] = {
        "change": float(change[attribute.column]) / attribute.deviation,
        "leaks": leaks,
        "largest_leak": max(map(abs, leaks.values()), default=0.0),
    }
    if embed is not None:
        below, here, above = judged(generator, direction, codes, [-1.0, 0.0, 1.0], embed)
        found["identity"] = [float((e * here).sum(dim=1).mean()) for e in (below, above)]
    return found


def by_width(direction: Direction, width: float) -> Direction:
    """Sets the unit to the latent distribution's width along the direction, the range to -3 to 3.

    For directions that no judge measures: GANSpace's, SeFa's, and those of given scores. `width` is
    the standard deviation of the latent space along the vector, in lengths of it.
    """
    return replace(
        direction,
        unit=width,
        strengths=(-FARTHEST, FARTHEST),
        meaning=f"one standard deviation of {direction.space} along the direction",
    )


def width_of(
    codes: Tensor,  # [N, D], or rows [N, L, D]
    vector: Tensor,  # [1, D], or [L, D]
) -> float:
    """Computes the standard deviation of codes along a vector, in lengths of it."""
    flat, along = codes.double().reshape(len(codes), -1), vector.double().reshape(-1)
    return float((flat @ along).std() / along.square().sum())


def measured(
    generator: Generator,
    direction: Direction,
    samples: Samples,
    *,
    judge: Judge,
    embed: Judge | None,
    codes: Tensor,  # [N, D] or [N, L, D]
    ways: Mapping[str, Direction] | None = None,
) -> Direction:
    """Calibrates a direction on half of the codes and measures what it changes on the others.

    Args:
        generator: the generator.
        direction: as it was found.
        samples: that it was found from.
        judge: of the samples.
        embed: images to unit embeddings; None does not measure identity.
        codes: of the direction's space, other ones than the samples'.
        ways: the direction as found in other ways, by name, whose leaks are to be compared.

    Returns:
        The direction, with the figures of `account` in its provenance, and for each way under
        "compared" the largest leak per change of the direction's own attribute.

    Raises:
        ValueError: if the attribute does not respond to the direction.
    """
    first, second = codes.chunk(2)
    own = samples.attribute(direction.name)
    others = [samples.attribute(name) for name in samples.names if name != direction.name]
    width = width_of(samples.codes, direction.vector)
    scaled = calibrated(generator, direction, own, codes=first, width=width, judge=judge)
    found = account(generator, scaled, own, others, codes=second, judge=judge, embed=embed)
    if ways:
        found["compared"] = {}
    for way, other in (ways or {}).items():
        same = replace(other, unit=scaled.unit)
        figures = account(generator, same, own, others, codes=second, judge=judge)
        found["compared"][way] = figures["largest_leak"] / abs(figures["change"])
    return replace(scaled, provenance={**scaled.provenance, **found})
