"""Edits: directions with strengths, made into a move of codes that any inversion method applies.

Edits add up: each is computed from the codes before any edit, so that their order does not matter
(e4e's authors combine directions so). A coordinate is reached exactly if it is the only edit on its
component.

Directions of W are added to codes. Directions of Z act on codes of Z and Z+, whose rows lie on
spheres, and walk there along the sum of the edits (F/Z+, arXiv 2307.08995; `clcae.stylegan2.walk`):
rows stay on their spheres however far they go, and the opposite strength returns. A direction of
one row moves every row. To act on codes of Z or Z+, directions of W wait for the mapping network:
the result is of W or W+. Directions of Z cannot act on codes of W. A feature that replaces the
generator's (F/Z+) stays.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from clcae.methods.interface import Inversion, InversionMethod
from clcae.stylegan2 import Generator, LatentSpace, slerp, walk
from editing.directions import Direction
from editing.statistics import Watch

Edit = tuple[Direction, float]  # and the strength
Move = Callable[[Tensor], Tensor]  # codes [N, L, D] -> codes of the same shape


def move_of(
    edits: Sequence[tuple[Direction, float | Tensor]],
    *,
    watch: Watch | None = None,
    along: Callable[[Tensor, Tensor], Tensor] = walk,
) -> Move:
    """Makes the move that applies several edits at once.

    Args:
        edits: directions, all of W and W+ or all of Z and Z+, each with its strength: a number, or
            one for each code [N].
        watch: called after every move to warn of codes too far out; None checks nothing.
        along: moves rows of Z by their shift; `walk_in_steps` is the official loop.

    Returns:
        A move of codes [N, L, D] (or [N, 1, D], one row for all layers) to codes of the same shape.
        It raises ValueError if a direction does not fit the codes: another width or number of rows,
        or layers of its own on codes of one row.

    Raises:
        ValueError: if directions of Z and of W are to act at once; see `edit_inversion`.
    """
    spaces = {direction.space.is_mapped: direction for direction, _ in edits}
    if len(spaces) > 1:
        raise ValueError(
            f"directions {spaces[False].name} of {spaces[False].space} and {spaces[True].name} of "
            f"{spaces[True].space} in one move: those of Z act before the mapping network"
        )
    on_sphere = False in spaces

    def move(codes: Tensor) -> Tensor:
        shifts = [direction.shift(codes, strength) for direction, strength in edits]
        moved = along(codes, torch.stack(shifts).sum(dim=0)) if on_sphere else sum(shifts, codes)
        if watch is not None:
            for direction, _ in edits:
                watch(direction, codes, moved)
        return moved

    return move


def shares_of(direction: Direction, strength: float) -> Callable[[Tensor], Move] | None:
    """Returns what makes the move by a share of a strength, of each code its own [N].

    None for directions of W, where a share of the strength is that share of the shift.
    """
    if direction.space.is_mapped:
        return None
    return lambda shares: move_of([(direction, strength * shares)])


def towards(
    target: Tensor,  # [N, L, D]
    share: float,  # 0 stays, 1 is the target
    *,
    space: LatentSpace,
) -> Move:
    """Makes the move by a share of the way to other codes: along the sphere in Z and Z+."""
    if space.is_mapped:
        return lambda codes: torch.lerp(codes, target.to(codes), share)
    return lambda codes: slerp(codes, target.to(codes), share)


def moved_pictures(
    generator: Generator,
    direction: Direction,
    codes: Tensor,  # [N, D], or rows [N, L, D], in the direction's space
    strength: float,
    *,
    watch: Watch | None = None,
) -> Iterator[Tensor]:
    """Synthesizes codes moved along a direction; yields pictures [n, 3, H, W] in batches."""
    rows = codes[:, None].expand(-1, generator.num_codes, -1) if codes.ndim == 2 else codes
    moved = move_of([(direction, strength)], watch=watch)(rows.to(generator.w_average))
    latent = moved if direction.space.is_mapped else generator.map(moved)
    yield from map(generator.synthesize, latent.split(min(generator.at_once, 256)))


def edit_inversion(
    method: InversionMethod,
    inversion: Inversion,
    edits: Sequence[Edit],
    *,
    watch: Watch | None = None,
) -> Inversion:
    """Edits an inversion by the method's own rule.

    The result is in the space that its codes are of after all edits: directions of Z act first, and
    codes are mapped before directions of W act on them.

    Raises:
        ValueError: if a direction fits neither the generator nor the space of the codes.
    """
    for direction, _ in edits:
        direction.check(method.generator)
        if inversion.space.is_mapped and not direction.space.is_mapped:
            raise ValueError(
                f"direction {direction.name} was found in {direction.space}, the codes are of "
                f"{inversion.space}, which has no way back: take a direction of W"
            )
    of_z = [edit for edit in edits if not edit[0].space.is_mapped]
    of_w = [edit for edit in edits if edit[0].space.is_mapped]
    if of_z or not edits:
        inversion = method.edit(inversion, move_of(of_z, watch=watch))
    if of_w:
        inversion = method.edit(method.mapped(inversion), move_of(of_w, watch=watch))
    return inversion


def parse_edit(text: str) -> tuple[str, float]:
    """Parses "smile=2" as ("smile", 2.0).

    Raises:
        ValueError: if the text is of another form, or the strength is not finite.
    """
    name, sign, strength = text.rpartition("=")
    name = name.strip()
    try:
        value = float(strength)
    except ValueError:
        value = math.nan
    if not sign or not name or not math.isfinite(value):
        raise ValueError(f"edit {text!r}, expected NAME=STRENGTH such as smile=2 or age=-1.5")
    return name, value


def chosen_edits(directions: dict[str, Direction], texts: Sequence[str]) -> list[Edit]:
    """Parses edits such as "smile=2"; a name alone takes the direction's default strength.

    Raises:
        ValueError: if a text is of another form, or names none of the directions.
    """
    edits = []
    for text in texts:
        name, strength = (text, None) if text in directions else parse_edit(text)
        if name not in directions:
            names = list(directions)
            more = f" and {len(names) - 20} more" if len(names) > 20 else ""
            raise ValueError(
                f"there is no direction {name!r}; there are: {', '.join(names[:20])}{more}"
            )
        direction = directions[name]
        edits.append((direction, direction.default if strength is None else strength))
    return edits
