"""Edited pictures: computed from what was read of a file, and written as pictures and strips.

A change is a plain function of an inversion, such as a method's edit along a direction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from clcae.data.pictures import Item
from clcae.data.transforms import resize
from clcae.images import labelled_grid, write_png
from clcae.methods.interface import Inversion, InversionMethod
from clcae.methods.inversion_file import join, moved_to, split
from clcae.photographs.cutouts import Cutout, Size, content, moved, place_of, put_back
from clcae.photographs.masks import Mask
from clcae.photographs.passes import FAST
from clcae.photographs.reader import Part, Photograph, Stored
from clcae.stylegan2 import LatentSpace

Change = Callable[[Inversion], Inversion]

SMALLEST_CELL = 128  # pixels; smaller pictures of a strip are enlarged by a whole number
LARGEST_CELL = 256


@dataclass(frozen=True)
class Sweep:
    """One edit at several strengths: a row of a strip."""

    name: str
    strengths: Sequence[float]
    changes: Sequence[Change]  # one for each strength


@dataclass(frozen=True)
class Edits:
    """Computes and writes the edited pictures of files.

    Args:
        method: inverts and synthesizes.
        edit: the change that is asked for.
        whole: write the photograph with the edit in it, not the generator's picture alone.
        crops: write the edited crops beside the photograph.
        difference: add to the photograph only what the edit changed.
        mask: where the photograph may change; None is everywhere.
        sweeps: rows of the strip of each file; empty draws no strips.
    """

    method: InversionMethod
    edit: Change
    whole: bool
    crops: bool
    difference: bool
    mask: Mask | None
    sweeps: Sequence[Sweep]

    def compute(self, parts: Sequence[Part]) -> list[Tensor]:
        """Makes the pictures of every part, [K, 3, R, R] on the CPU, as `write` takes them."""
        changes = [self.edit]
        if self.sweeps or self.difference:
            changes.append(lambda inversion: inversion)
        changes += [change for sweep in self.sweeps for change in sweep.changes]
        return changed_pictures(self.method, parts, changes)

    def files(self, names: Sequence[str]) -> list[str]:
        """Names the files of one input: the photograph, then crop and strip of each of its parts.

        Where no photograph is written, each part has a picture of its own: codes, one for each.
        """
        parts = [f"{name}-crop.png" for name in names if self.crops]
        parts += [f"{name}-strip.png" for name in names if self.sweeps]
        item = names[0] if len(names) == 1 else names[0].removesuffix("-0")
        return [*([f"{item}.png"] if self.whole else [f"{name}.png" for name in names]), *parts]

    def write(
        self,
        item: Item,
        names: Sequence[str],
        given: Photograph | Stored,
        pictures: Sequence[Tensor],
        paths: Sequence[Path],
    ) -> None:
        """Writes the `files` of one input to paths.

        `pictures` are of each part [K, 3, R, R]: the edit, the inversion, then the sweeps.
        """
        first = 1 if self.whole else len(names)
        strips = first + (len(names) if self.crops else 0)  # where their paths begin
        if self.crops:
            for made, path in zip(pictures, paths[first:strips], strict=True):
                write_png(made[0], path, compress_level=FAST)
        if self.sweeps:
            for number, path in enumerate(paths[strips:]):
                before = [("inversion", pictures[number][1])]
                if isinstance(given, Photograph):
                    before.insert(0, ("input", given.parts[number].image))
                sheet = self._strip(before, pictures[number][2:])
                write_png(sheet, path, compress_level=FAST)
        if not self.whole:
            for made, path in zip(pictures, paths[:first], strict=True):
                write_png(made[0], path, compress_level=FAST)
            return
        assert isinstance(given, Photograph) and given.whole is not None
        size = given.whole.size
        rows, columns = place_of(given.parts, size)
        alpha = self.mask.alpha(size)[rows, columns] if self.mask is not None else None

        def edit(photo: Tensor) -> Tensor:
            result = photo
            for cutout, made in zip(given.parts, pictures, strict=True):
                reference = made[1] if self.difference else None
                place = moved(cutout, rows, columns)
                result = put_back(result, made[0], place, reference=reference)
            return result if self.mask is None else self.mask.apply(photo, result, alpha=alpha)

        given.whole.write(paths[0], rows, columns, edit, compress_level=FAST)

    def _strip(self, before: Sequence[tuple[str, Tensor]], swept: Tensor) -> Tensor:
        rows = swept.split([len(sweep.strengths) for sweep in self.sweeps])
        return strip(before, list(zip(self.sweeps, rows, strict=True)), self.method.image_shape)


def changed_pictures(
    method: InversionMethod, parts: Sequence[Part], changes: Sequence[Change]
) -> list[Tensor]:
    """Inverts parts as one batch and synthesizes each under all changes: [K, 3, R, R] on CPU.

    Codes that came without a picture are a batch of their own for each space.
    """
    pictures: dict[int, Tensor] = {}
    forms = [_bare_space(part) for part in parts]
    for form in dict.fromkeys(forms):
        places = [place for place, other in enumerate(forms) if other == form]
        inversion = _inversion(method, [parts[place] for place in places])
        made = [method.synthesize(change(inversion)).cpu() for change in changes]
        pictures |= dict(zip(places, torch.stack(made, dim=1), strict=True))
    return [pictures[place] for place in range(len(parts))]


def _bare_space(part: Part) -> LatentSpace | None:
    """Returns the space of codes alone, which join no inversion of another form; else None."""
    if isinstance(part, Cutout) or part.feature is not None or part.context:
        return None
    return part.space


def _inversion(method: InversionMethod, parts: Sequence[Part]) -> Inversion:
    """Inverts cutouts and takes stored inversions as they are; one batch, in the given order."""
    images = [part.image for part in parts if isinstance(part, Cutout)]
    stored = [moved_to(part, method.device) for part in parts if isinstance(part, Inversion)]
    if not stored:
        return method.invert(torch.stack(images).to(method.device))
    completed = method.completed(join(stored))
    if not images:
        return completed
    inverted = method.invert(torch.stack(images).to(method.device))
    rows = {Cutout: iter(split(inverted)), Inversion: iter(split(completed))}
    return join([next(rows[type(part)]) for part in parts])


def strip(
    before: Sequence[tuple[str, Tensor]],  # heading, picture [3, h, w]
    sweeps: Sequence[tuple[Sweep, Tensor]],  # with a picture for each strength, [K, 3, R, R]
    shape: Size,
) -> Tensor:
    """Draws sweeps as rows of one image [3, H', W'], each headed by the pictures `before`.

    `shape`, of the method's images, is the aspect of the cells.
    """
    shrink = max(max(shape) / LARGEST_CELL, 1)
    cell = (round(shape[0] / shrink), round(shape[1] / shrink))
    rows = []
    for sweep, pictures in sweeps:
        headings = [f"{s:+g}" if s else "0" for s in sweep.strengths]
        columns: dict[str, Tensor] = {}
        for heading, picture in [*before, *zip(headings, pictures, strict=True)]:
            while heading in columns:
                heading += " "  # a strength that is given twice is shown twice
            columns[heading] = resize(content(picture, shape)[None], cell)
        scale = max(SMALLEST_CELL // max(cell), 1)
        rows.append(labelled_grid(columns, scale=scale, row_labels=[sweep.name]))
    # Names differ in width: rows of as many strengths stand below each other at their right ends.
    same = len({len(sweep.strengths) for sweep, _ in sweeps}) == 1
    width = max(row.shape[-1] for row in rows)
    spaces = [width - row.shape[-1] for row in rows]
    padded = [
        F.pad(row, (space, 0) if same else (0, space), value=1.0)
        for row, space in zip(rows, spaces, strict=True)
    ]
    return torch.cat(padded, dim=1)
