"""What is observed of a method, or of files that some method wrote: pairs that metrics read.

Inversion is done once for all spaces where a method can. An edit is made, looked at, inverted again
and undone, for what LEC (e4e, section 5.3) and an editing FID (StyleRes, section 4.2) compare.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clcae.data.pictures import Item, find_items
from clcae.data.transforms import at_input_size, resize
from clcae.evaluation.measures import codes_of, unedited_of
from clcae.evaluation.preparation import Size
from clcae.evaluation.tally import RECONSTRUCTION, Observations, Pair
from clcae.images import read_image
from clcae.methods.interface import Inversion, InversionMethod, Move
from clcae.stylegan2 import LatentSpace


@dataclass(frozen=True)
class EditMoves:
    """An edit of codes, and what takes it back.

    Args:
        move: the edit.
        undo: its inverse.
        space: where both were found; codes of Z are mapped before a move of W.
    """

    move: Move
    undo: Move
    space: LatentSpace = LatentSpace.W


class MethodObserver:
    """Images to what a method makes of them.

    Args:
        method: The method.
        outputs: Which of its outputs, a space each.
        shape: Height and width at which the method is given its inputs.
        edits: Name -> what is done to the codes; none observes reconstructions alone.
        second_look: Whether edited pictures are inverted again, for LEC.
    """

    def __init__(
        self,
        *,
        method: InversionMethod,
        outputs: Sequence[str],
        shape: Size,
        edits: Mapping[str, EditMoves] | None = None,
        second_look: bool = True,
    ) -> None:
        self.method, self.shape = method, shape
        self.asked = {output: method.with_output(output) for output in outputs}
        self.edits = dict(edits or {})
        self.second_look = second_look

    def __call__(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1], as large as the method reads them or larger
    ) -> Observations:
        """For each output the stream of reconstructions, and those of the edits."""
        size = (images.shape[-2], images.shape[-1])
        inputs = self.inputs(images)
        inversions: dict[str, Inversion] = {}
        pictures = self._reconstructions(inputs, size, inversions)
        observed: dict[str, dict[str, Pair]] = {
            space: {RECONSTRUCTION: (made, images)} for space, made in pictures.items()
        }
        if self.edits:
            for space, method in self.asked.items():
                inversion = inversions.get(space) or method.invert(inputs)
                observed[space] |= self._edited(method, inversion, images, pictures[space])
        return observed

    def inputs(self, images: Tensor) -> Tensor:
        """Images as the method reads them."""
        return resize(images, self.shape, filter_name="bilinear")

    def reconstruct(self, inputs: Tensor, output: str) -> Tensor:
        """One output alone, as large as the inputs: what is timed."""
        return self.method.reconstruct(inputs, output)

    def _reconstructions(
        self, inputs: Tensor, size: Size, inversions: dict[str, Inversion]
    ) -> dict[str, Tensor]:
        """Of each output; the inversions are kept for the edits, if any are to follow."""
        if tuple(inputs.shape[-2:]) == size and not self.edits:
            if {*self.asked} == {*self.method.outputs}:
                found = self.method.reconstructions(inputs)
                return {space: found[space] for space in self.asked}
            return {space: self.method.reconstruct(inputs, space) for space in self.asked}
        pictures = {}
        for space, method in self.asked.items():
            inversions[space] = method.invert(inputs)
            pictures[space] = at_input_size(method.synthesize(inversions[space]), size)
        return pictures

    def _edited(
        self, method: InversionMethod, inversion: Inversion, images: Tensor, unedited: Tensor
    ) -> dict[str, Pair]:
        streams: dict[str, Pair] = {}
        unedited = unedited.clamp(-1, 1)  # as outputs are, which it is compared with
        for name, edit in self.edits.items():
            before = method.mapped_for(inversion, edit.space)
            picture = method.synthesize(method.edit(before, edit.move))
            shown = at_input_size(picture, images.shape[-2:])
            streams[name] = (shown, images)
            streams[unedited_of(name)] = (shown, unedited)
            if self.second_look:
                again = method.invert(at_input_size(picture, self.shape))
                codes = method.mapped_for(again, edit.space).codes
                streams[codes_of(name)] = (edit.undo(codes), before.codes)
        return streams


class PairedFolders:
    """Reconstructions that lie in a folder, beside their originals in another.

    Files belong together where their paths below the folders are the same, endings aside. As an
    image source it gives both pictures on each other, [N, 6, H, W]: `observe` parts them again.

    Args:
        reconstructions: Folder of what some method made.
        originals: Folder of what it was given.

    Raises:
        FileNotFoundError: If a folder is missing or empty.
        ValueError: If a file of either has no partner in the other; all are listed.
    """

    space = "files"

    def __init__(self, *, reconstructions: str, originals: str) -> None:
        made, given = _by_name(reconstructions), _by_name(originals)
        lonely = [
            f"{len(names)} of {len(files)} in {folder} have no partner ({', '.join(sorted(names))})"
            for folder, files, names in (
                (reconstructions, made, made.keys() - given.keys()),
                (originals, given, given.keys() - made.keys()),
            )
            if names
        ]
        if lonely:
            raise ValueError("; ".join(lonely))
        self.pairs = [(name, made[name].path, given[name].path) for name in sorted(made)]

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        """The path below the folders, without ending."""
        return self.pairs[index][0]

    def images(self, indices: Sequence[int] | Tensor) -> Tensor:
        """[N, 6, H, W] in [-1, 1]: reconstruction, then original.

        Raises:
            ValueError: If a file cannot be read, or sizes differ.
        """
        stacked = []
        for index in torch.as_tensor(indices).tolist():
            name, made, given = self.pairs[index]
            pair = read_image(made), read_image(given)
            if pair[0].shape != pair[1].shape:
                sizes = [f"{p.shape[-2]} x {p.shape[-1]}" for p in pair]
                raise ValueError(f"{name} is {sizes[0]}, its original {sizes[1]}")
            stacked.append(torch.cat(pair))
        return torch.stack(stacked)

    @staticmethod
    def observe(images: Tensor) -> Observations:
        """The stream of reconstructions, of one space."""
        return {PairedFolders.space: {RECONSTRUCTION: (images[:, :3], images[:, 3:])}}


def _by_name(folder: str) -> dict[str, Item]:
    return {item.name: item for item in find_items([folder])}
