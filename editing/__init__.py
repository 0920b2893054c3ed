"""Directions in latent space: finding them, loading them, moving along them."""

from editing.direction_set import save_directions
from editing.directions import Direction
from editing.editor import (
    chosen_edits,
    edit_inversion,
    move_of,
    parse_edit,
    shares_of,
    towards,
)
from editing.files import (
    directions_for,
    directions_named,
    load_directions,
    official_directions,
)
from editing.statistics import LatentStatistics, Watch

__all__ = [
    "Direction",
    "LatentStatistics",
    "Watch",
    "chosen_edits",
    "directions_for",
    "directions_named",
    "edit_inversion",
    "load_directions",
    "move_of",
    "official_directions",
    "parse_edit",
    "save_directions",
    "shares_of",
    "towards",
]
