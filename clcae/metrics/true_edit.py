"""Edits compared with the true one: distances within areas, and the strength of equal change.

Neither has a source: no photograph comes with its own true edit, so the field has no such measure.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from clcae.metrics.metric import Direction, MeanMetric
from clcae.metrics.reconstruction import PSNR_CEILING

Change = Callable[[Tensor], Tensor]  # strengths [N] to how much pictures change, [N]


@dataclass(frozen=True)
class Quantity:
    """A quantity of true edits, as rows describe it."""

    direction: Direction
    range: tuple[float, float]
    words: Mapping[str, str]


_INFINITE = float("inf")
QUANTITIES: Mapping[str, Quantity] = {
    "psnr": Quantity(
        "higher", (0.0, PSNR_CEILING), {"unit": "dB", "scale": "[0, 1]", "levels": "uint8"}
    ),
    "perceptual": Quantity(
        "lower",
        (0.0, _INFINITE),
        {"input": "[-1, 1], outside of the area that of the true edit", "levels": "uint8"},
    ),
    "reached": Quantity(
        "higher",
        (0.0, 1.0),
        {"value": "share of pictures that change as much as the true edit within the range"},
    ),
    "change": Quantity(
        "",
        (-_INFINITE, _INFINITE),
        {"value": "judged change the way of the edit, on the scale of the labels"},
    ),
}


class TrueEditMean(MeanMetric):
    """Averages a quantity over pictures, and of each picture over its edits.

    Items are the values of a picture [N, E], NaN where an edit has none, as where an area is empty.

    `quantity` is one of QUANTITIES.
    """

    def __init__(self, quantity: str) -> None:
        super().__init__()
        self.words = QUANTITIES[quantity].words
        self.direction = QUANTITIES[quantity].direction  # type: ignore[misc]
        self.range = QUANTITIES[quantity].range  # type: ignore[misc]

    @property
    def protocol(self) -> Mapping[str, str]:
        return {**self.words, "averaging": "mean over pictures, of each over its edits"}

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Averages [N, E] to [N]. Raises ValueError if the shape is another."""
        if outputs.ndim != 2:
            raise ValueError(f"values {tuple(outputs.shape)}: expected [N, E]")
        return outputs.detach().cpu().double().nanmean(dim=1)


def area_psnr(
    outputs: Tensor,  # [N, 3, H, W], in [-1, 1]
    targets: Tensor,  # [N, 3, H, W], in [-1, 1]
    area: Tensor,  # [N, H, W], bool
) -> Tensor:
    """Computes the PSNR of each pair within its area: [N], float64; NaN where that is empty.

    In [0, `PSNR_CEILING`] dB; the peak is 2.
    """
    errors = (outputs.double() - targets.double()).square().mean(dim=1)
    within = (errors * area).sum(dim=(1, 2)) / area.sum(dim=(1, 2))  # 0 / 0 is NaN
    return (-10 * (within / 4).log10()).clamp(0, PSNR_CEILING)


def pasted(
    outputs: Tensor,  # [N, 3, H, W]
    targets: Tensor,  # [N, 3, H, W]
    area: Tensor,  # [N, H, W], bool
) -> Tensor:
    """Pastes outputs into targets within an area, so that a network sees errors of it alone."""
    return torch.where(area[:, None], outputs, targets)


@dataclass(frozen=True)
class EqualChange:
    """The strengths at which pictures change as much as they should.

    Args:
        strengths: in [0, 1] of the range; where the change is never reached, that of the largest.
        reached: where it is.
        grid: the strengths that were tried for all, from 0 to 1.
        changes: of each picture at each of them.
    """

    strengths: Tensor  # [N]
    reached: Tensor  # [N], bool
    grid: Tensor  # [K + 1]
    changes: Tensor  # [K + 1, N]


def equal_change(
    change: Change, wanted: Tensor, *, parts: int = 8, refinements: int = 3
) -> EqualChange:
    """Searches the least strength at which each picture changes as much as wanted.

    The range is tried in equal parts; the first that holds the change is narrowed by false
    position, and interpolated. Who is to change by nothing, or the other way, is left at 0.

    Args:
        change: how much pictures change at strengths in [0, 1]; 0 at 0.
        wanted: the change of each, [N].
        parts: of the range.
        refinements: of the part, each with one more call of `change`.
    """
    grid = torch.linspace(0, 1, parts + 1, dtype=wanted.dtype, device=wanted.device)
    tried = [change(strength.expand(len(wanted))) for strength in grid[1:]]
    changes = torch.stack([torch.zeros_like(wanted), *tried])
    enough = changes >= wanted
    reached, first = enough.any(dim=0), enough.int().argmax(dim=0)
    before = (first - 1).clamp(min=0)
    low, high = grid[before], grid[first]
    below, above = (changes.gather(0, place[None])[0] for place in (before, first))
    for step in range(refinements + 1):
        share = ((wanted - below) / (above - below)).nan_to_num(1.0, 1.0, 1.0).clamp(0, 1)
        middle = low + share * (high - low)
        if step == refinements:
            break
        found = change(middle)
        over = found >= wanted
        low, below = torch.where(over, low, middle), torch.where(over, below, found)
        high, above = torch.where(over, middle, high), torch.where(over, found, above)
    most = grid[changes.nan_to_num(nan=-_INFINITE).argmax(dim=0)]
    strengths = torch.where(reached, torch.where(first == 0, 0.0, middle), most)
    return EqualChange(strengths, reached, grid, changes)
