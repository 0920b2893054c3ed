"""Edited pictures of photographs and of inversion files, and how they are shown.

A change is a plain function of an inversion, such as a method's edit along a direction; finding
directions is none of the library's business.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from clcae.data.pictures import Item
from clcae.data.threads import batched
from clcae.data.transforms import resize
from clcae.images import labelled_grid, write_png
from clcae.methods.interface import Inversion, InversionMethod
from clcae.methods.inversion_file import join, moved_to, split
from clcae.photographs.cutouts import (
    Alpha,
    Cutout,
    Photograph,
    Size,
    content,
    face_names,
    put_back,
    unpacked,
    within,
)
from clcae.photographs.passes import FAST

Change = Callable[[Inversion], Inversion]

SMALLEST_CELL = 128  # pixels; smaller pictures of a strip are enlarged by a whole number
LARGEST_CELL = 256


@dataclass(frozen=True)
class Stored:
    """An inversion file in place of a photograph: one picture's inversion, on the CPU."""

    inversion: Inversion


Given = Photograph | Stored


def pictures_of(
    sources: Sequence[Given],
    changes: Sequence[Change],
    *,
    method: InversionMethod,
    device: torch.device,
    at_once: int,
) -> list[list[Tensor]]:
    """What a method makes of sources under every change.

    Args:
        sources: Photographs, whose cutouts are inverted, and stored inversions.
        changes: What is done to an inversion before it is synthesized; each begins anew.
        method: The method.
        device: Where it is.
        at_once: Pictures at once.

    Returns:
        For each source and each of its cutouts, [K, 3, R, R] on the CPU: a picture for each change.
    """
    parts = [_parts(source) for source in sources]
    pictures: list[Tensor] = []
    for some in batched((part for these in parts for part in these), at_once):
        inversion = _inversion(some, method, device)
        made = [method.synthesize(change(inversion)).cpu() for change in changes]
        pictures += torch.stack(made, dim=1)
    rest = iter(pictures)
    return [[next(rest) for _ in these] for these in parts]


def composed(
    photograph: Photograph,
    pictures: Sequence[Tensor],  # [3, R, R] of every cutout
    *,
    references: Sequence[Tensor | None],
    mask: Alpha | None,
) -> Tensor:
    """The photograph with edited pictures in the places of its cutouts.

    Args:
        photograph: With its image.
        pictures: The edited pictures.
        references: The pictures before the edit, where only the difference is wanted.
        mask: Where the photograph may change; elsewhere it stays as it was, value for value. None
            is everywhere.

    Returns:
        [3, H, W], in [-1, 1].

    Raises:
        ValueError: The mask does not fit the photograph.
    """
    assert photograph.image is not None
    photo = edited = unpacked(photograph.image)
    for cutout, picture, reference in zip(photograph.cutouts, pictures, references, strict=True):
        edited = put_back(edited, picture, cutout, reference=reference)
    return edited if mask is None else within(mask(photograph.size), photo, edited)


def strip(
    before: Sequence[tuple[str, Tensor]],  # heading, picture [3, h, w]
    sweeps: Sequence[tuple[str, Sequence[float], Tensor]],  # name, strengths [K], [K, 3, R, R]
    *,
    shape: Size,
) -> Tensor:
    """What was there before, beside an edit at several strengths; a row for each edit.

    Args:
        before: Pictures to begin every row with: the input, the inversion.
        sweeps: Of each edit its name, the strengths, and a picture for each.
        shape: Height and width of the method's images: the aspect of the cells.

    Returns:
        One image [3, H', W'].
    """
    shrink = max(max(shape) / LARGEST_CELL, 1)
    cell = (round(shape[0] / shrink), round(shape[1] / shrink))
    rows = []
    for name, strengths, pictures in sweeps:
        headed = [*before]
        headed += ((f"{s:+g}" if s else "0", p) for s, p in zip(strengths, pictures, strict=True))
        columns: dict[str, Tensor] = {}
        for heading, picture in headed:
            while heading in columns:
                heading += " "  # a strength that is given twice is shown twice
            columns[heading] = resize(content(picture, shape)[None], cell)
        scale = max(SMALLEST_CELL // max(cell), 1)
        rows.append(labelled_grid(columns, scale=scale, row_labels=[name]))
    # Names differ in width: rows of as many strengths stand below each other at their right ends.
    same = len({len(strengths) for _, strengths, _ in sweeps}) == 1
    width = max(row.shape[-1] for row in rows)
    spaces = [width - row.shape[-1] for row in rows]
    padded = [
        F.pad(row, (space, 0) if same else (0, space), value=1.0)
        for row, space in zip(rows, spaces, strict=True)
    ]
    return torch.cat(padded, dim=1)


@dataclass(frozen=True)
class Results:
    """What is written for a file.

    Args:
        out: The folder.
        shape: Height and width of the images the method reads.
        whole: The photograph is shown, not what the generator makes alone.
        crops: The edited crops are written beside the photograph.
        difference: The photograph receives what the edit changed, not the picture.
        mask: Where the photograph may change; None is everywhere.
        sweeps: Of each edit its name and the strengths of its strip; none without strips.
    """

    out: Path
    shape: Size
    whole: bool
    crops: bool
    difference: bool
    mask: Alpha | None
    sweeps: Sequence[tuple[str, list[float]]]

    def write(self, item: Item, given: Given, pictures: list[Tensor]) -> None:
        """The files of one source, NAME.png last, which says that all is done.

        Args:
            item: The source.
            given: What was read of it.
            pictures: Of each cutout [K, 3, R, R]: the edit, the inversion, then the sweeps.
        """
        for number, name in enumerate(face_names(item.name, len(pictures))):
            if self.crops:
                write_png(pictures[number][0], self.out / f"{name}-crop.png", compress_level=FAST)
            if self.sweeps:
                sheet = self._strip(given, number, pictures[number])
                write_png(sheet, self.out / f"{name}-strip.png", compress_level=FAST)
        result = pictures[0][0]
        if self.whole:
            assert isinstance(given, Photograph)
            result = composed(
                given,
                [edited[0] for edited in pictures],
                references=[edited[1] if self.difference else None for edited in pictures],
                mask=self.mask,
            )
        write_png(result, self.out / f"{item.name}.png", compress_level=FAST)

    def _strip(self, given: Given, number: int, pictures: Tensor) -> Tensor:
        before = [("inversion", pictures[1])]
        if isinstance(given, Photograph):
            before.insert(0, ("input", given.cutouts[number].image))
        swept, first = [], 2
        for name, strengths in self.sweeps:
            swept.append((name, strengths, pictures[first : first + len(strengths)]))
            first += len(strengths)
        return strip(before, swept, shape=self.shape)


def _parts(source: Given) -> Sequence[Cutout | Inversion]:
    return source.cutouts if isinstance(source, Photograph) else [source.inversion]


def _inversion(
    parts: Sequence[Cutout | Inversion], method: InversionMethod, device: torch.device
) -> Inversion:
    """One batch, in the order of the parts."""
    images = [part.image for part in parts if isinstance(part, Cutout)]
    files = [moved_to(part, device) for part in parts if isinstance(part, Inversion)]
    rows: dict[type, Iterator[Inversion]] = {}
    if images:
        rows[Cutout] = iter(split(method.invert(torch.stack(images).to(device))))
    if files:
        rows[Inversion] = iter(split(method.completed(join(files))))
    return join([next(rows[type(part)]) for part in parts])
