"""Edits: directions with strengths become a move of codes, which any inversion method applies.

Edits add up: each is computed from the codes as they are before any, so that their order does not
matter and the sum of two increments is one (e4e's authors give it as the way to combine
directions). A coordinate is reached exactly where it is the only edit on its component.

Directions of Z act on codes of Z and Z+. Codes are not put back on the sphere after a move, since
the mapping network normalises them (F/Z+, arXiv 2307.08995, does so after each small step). To act
on codes of Z or Z+, directions of W wait for the mapping network: the result is of W or W+.
Directions of Z cannot act on codes of W.
"""

import logging
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from clcae.methods.interface import Inversion, InversionMethod
from editing.directions import Direction
from editing.statistics import LatentStatistics

logger = logging.getLogger(__name__)

Edit = tuple[Direction, float]  # and the strength
Move = Callable[[Tensor], Tensor]  # codes [N, L, D] -> codes of the same shape

# Standard deviations. Of normal codes one in 16,000 lies farther out along a direction; codes that
# far from the rest are where a generator's pictures break and attributes no longer respond.
LIMIT = 4.0


class Watch:
    """Warns, once for each direction, of edited codes far from where the generator's codes lie.

    Args:
        statistics: of the generator's W.
        limit: standard deviations along the direction, from the mean, that are still in silence.
    """

    def __init__(self, statistics: LatentStatistics, *, limit: float = LIMIT) -> None:
        self.statistics, self.limit = statistics, limit
        self._warned: set[str] = set()

    def __call__(self, direction: Direction, before: Tensor, after: Tensor) -> None:
        """Compares codes [N, L, D] before and after an edit; what the edit brought nearer passes.

        Directions of Z have no statistics here and pass too.
        """
        if direction.name in self._warned or not direction.space.is_mapped:
            return
        distances = self.statistics.distances(direction, after)
        far = distances[distances > self.statistics.distances(direction, before) + 1e-3]
        if len(far) and float(far.max()) > self.limit:
            self._warned.add(direction.name)
            logger.warning(
                "%s: an edited code lies %.1f standard deviations of W from the mean along this "
                "direction (limit %g); expect artefacts, or take a smaller strength",
                direction.name,
                float(far.max()),
                self.limit,
            )


def move_of(edits: Sequence[Edit], *, watch: Watch | None = None) -> Move:
    """The move that makes several edits at once.

    Args:
        edits: directions with strengths, in any order; none of them is the identity.
        watch: is shown every edit's outcome; None looks at nothing.

    Returns:
        A function of codes [N, L, D] (or [N, 1, D], one row for all layers) to codes of the same
        shape. It raises ValueError, in one line, where a direction does not fit the codes: another
        width or number of rows, or layers of its own on codes of one row.
    """
    chosen = [(direction, float(strength)) for direction, strength in edits]

    def move(codes: Tensor) -> Tensor:
        moved = codes
        for direction, strength in chosen:
            moved = moved + direction.shift(codes, strength)
        if watch is not None:
            for direction, _ in chosen:
                watch(direction, codes, moved)
        return moved

    return move


def sweep(
    direction: Direction,
    strengths: Sequence[float] | None = None,
    *,
    steps: int = 5,
    others: Sequence[Edit] = (),
    watch: Watch | None = None,
) -> list[Move]:
    """One move for each strength, from the lowest to the highest: the pictures of a strip.

    Args:
        direction: that is swept.
        strengths: in this order; None takes `steps` of them, evenly over the direction's own range.
        steps: 2 or more; unused where strengths are given.
        others: edits made at every strength.
        watch: as in `move_of`.

    Raises:
        ValueError: fewer than two steps.
    """
    if strengths is None:
        if steps < 2:
            raise ValueError(f"steps is {steps}, expected 2 or more")
        strengths = torch.linspace(*direction.strengths, steps).tolist()
    return [move_of([*others, (direction, strength)], watch=watch) for strength in strengths]


def edit_inversion(
    method: InversionMethod,
    inversion: Inversion,
    edits: Sequence[Edit],
    *,
    watch: Watch | None = None,
) -> Inversion:
    """Edits an inversion by the method's own rule.

    Returns:
        An inversion in the space that its codes are of after all edits: directions of Z act first,
        and codes are mapped before directions of W act on them.

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
    """("smile", 2.0) of "smile=2".

    Raises:
        ValueError: the text is of another form, or the strength no finite number.
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
    """The edits of texts such as "smile=2"; a name alone takes the direction's default strength.

    Raises:
        ValueError: a text is of another form, or names none of the directions, with those there
            are.
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
