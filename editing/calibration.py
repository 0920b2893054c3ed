"""What a direction does to a judged attribute: its unit, its range, its leaks.

A raw direction has a length that says nothing. Here its unit becomes the length that changes the
attribute by one standard deviation of it over samples (for an attribute of two values: the length
that carries 95 % of the pictures to the other side), and its range is where that still holds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from clcae.stylegan2 import Generator
from editing.directions import Direction

Judge = Callable[[Tensor], Tensor]  # images [N, 3, H, W] in [-1, 1] -> [N, A]

CROSSED = 0.95  # share of the pictures that a unit of an attribute of two values carries over
FARTHEST = 3.0  # standard deviations of the latent distribution that a range stays within
LEAST_RESPONSE = 0.2  # of a unit's change, below which an attribute of a picture has saturated
RESPONDING = 0.05  # share of the pictures that have not: a strong beard is one in twenty
LARGEST = 5.0  # strength of a range
STEP = 0.25  # ranges end at multiples of it
_SCAN = 24  # lengths looked at to find a unit


@dataclass(frozen=True, eq=False)
class Attribute:
    """One attribute of a judge."""

    name: str
    column: int  # of what the judge returns
    deviation: float  # its standard deviation over samples
    binary: bool  # a probability: the pictures lie on either side of 0.5


@torch.no_grad()
def judged(
    generator: Generator,
    direction: Direction,
    codes: Tensor,  # [N, D], or rows [N, L, D], in the direction's space
    strengths: Sequence[float],
    judge: Judge,
) -> Tensor:
    """What the judge says of every code at every strength: [S, N, A]."""
    rows = codes[:, None].expand(-1, generator.num_codes, -1) if codes.ndim == 2 else codes
    rows = rows.to(generator.w_average)
    step = min(generator.at_once, 256)
    found = []
    for strength in strengths:
        moved = rows + direction.shift(rows, strength)
        latent = moved if direction.space.is_mapped else generator.map(moved)
        pictures = (generator.synthesize(part).clamp(-1, 1) for part in latent.split(step))
        found.append(torch.cat([judge(part).cpu() for part in pictures]))
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
    """The direction with unit, range and meaning measured on samples.

    Raises:
        ValueError: the attribute does not respond to the direction.
    """
    lengths = torch.linspace(0, 6 * width, _SCAN + 1)[1:].tolist()
    raw = replace(direction, unit=1.0)
    unit = _unit(raw, attribute, lengths, codes, judge, generator)
    scaled = replace(direction, unit=unit, default=1.0)
    limit = min(LARGEST, FARTHEST * width / unit)
    strengths = _range(scaled, attribute, limit, codes, judge, generator)
    meaning = (
        f"carries {CROSSED:.0%} of the pictures to the other side of {attribute.name}"
        if attribute.binary
        else f"one standard deviation of {attribute.name} ({attribute.deviation:.3g})"
    )
    return replace(scaled, strengths=strengths, default=min(1.0, strengths[1]), meaning=meaning)


def _unit(
    raw: Direction,
    attribute: Attribute,
    lengths: Sequence[float],
    codes: Tensor,
    judge: Judge,
    generator: Generator,
) -> float:
    """The shortest length, by linear interpolation, that has the effect of one unit."""
    wanted = CROSSED if attribute.binary else attribute.deviation
    before, last = 0.0, 0.0
    start = judged(generator, raw, codes, [0.0], judge)[0, :, attribute.column]
    for length in lengths:
        down, up = judged(generator, raw, codes, [-length, length], judge)[..., attribute.column]
        effect = _crossed(start, down, up) if attribute.binary else float((up - down).mean()) / 2
        if effect >= wanted:
            return last + (length - last) * (wanted - before) / (effect - before)
        before, last = effect, length
    raise ValueError(
        f"direction {raw.name}: {attribute.name} changes by {before:.3g} over {last:.3g}, less "
        f"than the {wanted:.3g} of a unit; the direction does not move this attribute"
    )


def _crossed(start: Tensor, down: Tensor, up: Tensor) -> float:
    """The lower of the shares that cross 0.5: upwards of those below it, downwards of the others.

    A side without pictures counts as crossed.
    """
    shares = [
        float((moved > 0.5).eq(upwards).float().mean()) if len(moved) else 1.0
        for moved, upwards in ((up[start <= 0.5], True), (down[start > 0.5], False))
    ]
    return min(shares)


def _range(
    scaled: Direction,
    attribute: Attribute,
    limit: float,
    codes: Tensor,
    judge: Judge,
    generator: Generator,
) -> tuple[float, float]:
    """How far either way the attribute responds, at most to the limit; at least one step.

    It responds as long as some of the pictures do: a beard is to be taken off those who have one,
    however many have none.
    """
    ends = []
    for sign in (-1.0, 1.0):
        grid = [sign * STEP * k for k in range(int(limit / STEP) + 1)]
        end = grid[-1]
        if not attribute.binary:
            scores = judged(generator, scaled, codes, grid, judge)[..., attribute.column]
            steps = sign * scores.diff(dim=0)  # [S - 1, N]
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
    """What a unit of the direction does, on average over codes, half of the way from -1 to +1.

    Returns:
        "change": of the attribute, in its standard deviations; "leaks": of each other attribute, in
        its own, by name; "largest_leak"; and "identity": the mean cosine of the embeddings at -1
        and at +1 to those of the unmoved codes, where an embedder is given.
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
    """The direction with the latent distribution's own width along it as its unit; range -3 to 3.

    For directions whose meaning no judge knows: GANSpace's, SeFa's, and those of given scores.

    Args:
        direction: of any unit.
        width: standard deviation of the latent space along the vector, in lengths of it.
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
    """Standard deviation of codes along a vector, in lengths of it."""
    flat, along = codes.double().reshape(len(codes), -1), vector.double().reshape(-1)
    return float((flat @ along).std() / along.square().sum())
