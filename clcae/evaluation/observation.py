"""Observes a method: pairs of pictures and of codes that metrics read.

Inversion is done once for all spaces where a method can. An edit is made, looked at, inverted again
and undone, for what LEC (e4e, section 5.3) and an editing FID (StyleRes, section 4.2) compare.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from clcae.data.transforms import at_input_size, resize
from clcae.evaluation.preparation import Size
from clcae.evaluation.tally import RECONSTRUCTION, Observations, Pair, codes_of, unedited_of
from clcae.methods.interface import Inversion, InversionMethod, Move
from clcae.stylegan2 import LatentSpace


@dataclass(frozen=True)
class EditMoves:
    """An edit of codes, and its inverse.

    Args:
        move: the edit.
        undo: its inverse.
        space: where both were found; codes of Z are mapped before a move of W.
    """

    move: Move
    undo: Move
    space: LatentSpace = LatentSpace.W


class MethodObserver:
    """Reconstructs and edits images by every output of a method.

    Args:
        method: the method.
        outputs: which of its outputs, a space each.
        shape: height and width at which the method is given its inputs.
        edits: name -> what is done to the codes; none observes reconstructions alone.
        second_look: whether edited pictures are inverted again, for LEC.
    """

    def __init__(
        self,
        *,
        method: InversionMethod,
        outputs: Sequence[str],
        shape: Size,
        edits: Mapping[str, EditMoves],
        second_look: bool = True,
    ) -> None:
        self.method, self.shape = method, shape
        self.asked = {output: method.with_output(output) for output in outputs}
        self.edits = dict(edits)
        self.second_look = second_look

    def __call__(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1], as large as the method reads them or larger
    ) -> Observations:
        """Returns for each output the stream of reconstructions, and those of the edits."""
        size = (images.shape[-2], images.shape[-1])
        inputs = resize(images, self.shape, filter_name="bilinear")
        inversions: dict[str, Inversion] = {}
        pictures = self._reconstructions(inputs, size, inversions)
        observed: dict[str, dict[str, Pair]] = {
            space: {RECONSTRUCTION: (made, images)} for space, made in pictures.items()
        }
        if self.edits:
            for space, method in self.asked.items():
                observed[space] |= self._edited(method, inversions[space], images, pictures[space])
        return observed

    def _reconstructions(
        self, inputs: Tensor, size: Size, inversions: dict[str, Inversion]
    ) -> dict[str, Tensor]:
        """Reconstructs by each output; keeps the inversions if edits are to follow."""
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
