"""Observes a method: what it reconstructs, edits and inverts again, for metrics to read.

Inversion is done once for all spaces where a method can. An edit is made, looked at, inverted again
and undone, for what LEC (e4e, section 5.3) and an editing FID (StyleRes, section 4.2) compare; so
is the reconstruction, without an edit. Only what is read is computed.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clcae.data.transforms import at_input_size, resize
from clcae.evaluation.preparation import Size
from clcae.evaluation.tally import (
    AGAIN,
    RECONSTRUCTION,
    Observations,
    Pair,
    beside_drift_of,
    codes_of,
    response_of,
    unedited_of,
)
from clcae.methods.interface import Inversion, InversionMethod, Move
from clcae.stylegan2 import LatentSpace, broadcast_rows, normalize_z


@dataclass(frozen=True)
class EditMoves:
    """An edit of codes, its inverse, and the space where both were found.

    Codes of Z are mapped before a move of W, unless there is one of their own, `on_sphere`. `share`
    makes the move by a share of the strength, of each code its own [N]; None takes the share of
    what `move` adds.
    """

    move: Move
    undo: Move
    space: LatentSpace = LatentSpace.W
    share: Callable[[Tensor], Move] | None = None
    on_sphere: "EditMoves | None" = None

    def of(self, space: LatentSpace) -> "EditMoves":
        """Returns what acts on codes of a space: that on the sphere on those of Z and Z+."""
        return self if self.on_sphere is None or space.is_mapped else self.on_sphere

    def by(self, shares: Tensor) -> Move:
        """Returns the move by a share of the strength for each code [N]."""
        if self.share is not None:
            return self.share(shares)

        def move(codes: Tensor) -> Tensor:
            return codes + shares[:, None, None].to(codes) * (self.move(codes) - codes)

        return move


@dataclass(frozen=True)
class _Made:
    """An inversion, the picture that the generator makes of it, and that in the inputs' shape."""

    inversion: Inversion
    picture: Tensor
    shown: Tensor


class MethodObserver:
    """Reconstructs and edits images by every output of a method.

    Args:
        outputs: those of the method that are measured, a space each.
        shape: height and width at which the method is given its inputs.
        edits: name -> what is done to the codes; none observes reconstructions alone.
        streams: those that metrics read.
    """

    def __init__(
        self,
        *,
        method: InversionMethod,
        outputs: Sequence[str],
        shape: Size,
        edits: Mapping[str, EditMoves],
        streams: Collection[str],
    ) -> None:
        self.method, self.shape = method, shape
        self.asked = {output: method.with_output(output) for output in outputs}
        self.edits = dict(edits)
        self.streams = {*streams}

    def __call__(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1], as large as the method reads them or larger
    ) -> Observations:
        """Returns for each output the stream of reconstructions, and those of the edits."""
        size = (images.shape[-2], images.shape[-1])
        inputs = resize(images, self.shape, filter_name="bilinear")
        if self.streams <= {RECONSTRUCTION} and tuple(inputs.shape[-2:]) == size:
            pictures = self._reconstructions(inputs)
            return {space: {RECONSTRUCTION: (made, images)} for space, made in pictures.items()}
        observed: dict[str, dict[str, Pair]] = {}
        for space, method in self.asked.items():
            inversion = method.invert(inputs)
            picture = method.synthesize(inversion)
            made = _Made(inversion, picture, at_input_size(picture, size))
            observed[space] = {RECONSTRUCTION: (made.shown, images)}
            again = self._again(method, made)
            if AGAIN in self.streams:
                assert again is not None
                observed[space][AGAIN] = (
                    method.mapped(again).codes,
                    method.mapped(inversion).codes,
                )
            for name in self.edits:
                observed[space] |= self._edited(name, method, made, again, images)
        return observed

    def _reconstructions(self, inputs: Tensor) -> dict[str, Tensor]:
        """Reconstructs by each output, sharing work where the method can."""
        if {*self.asked} == {*self.method.outputs}:
            found = self.method.reconstructions(inputs)
            return {space: found[space] for space in self.asked}
        return {space: self.method.reconstruct(inputs, space) for space in self.asked}

    def _again(self, method: InversionMethod, made: _Made) -> Inversion | None:
        """Inverts reconstructions, if their codes are read."""
        if not self.streams & {AGAIN, *map(beside_drift_of, self.edits)}:
            return None
        return method.invert(at_input_size(made.picture, self.shape))

    def _edited(
        self,
        name: str,
        method: InversionMethod,
        made: _Made,
        again: Inversion | None,
        images: Tensor,
    ) -> dict[str, Pair]:
        """Observes one edit."""
        edit, streams = self.edits[name].of(made.inversion.space), dict[str, Pair]()
        of_codes = self.streams & {codes_of(name), beside_drift_of(name)}
        if not of_codes and not self.streams & {name, unedited_of(name)}:
            return streams
        before = method.mapped_for(made.inversion, edit.space)
        picture = method.synthesize(method.edit(before, edit.move))
        shown = at_input_size(picture, images.shape[-2:])
        streams[name] = (shown, images)
        streams[unedited_of(name)] = (shown, made.shown.clamp(-1, 1))  # as outputs are
        if of_codes:
            inverted = method.invert(at_input_size(picture, self.shape))
            undone = edit.undo(method.mapped_for(inverted, edit.space).codes)
            streams[codes_of(name)] = (undone, before.codes)
            if again is not None:
                unchanged = method.mapped_for(again, edit.space).codes
                streams[beside_drift_of(name)] = (
                    torch.cat([undone, unchanged], dim=1),
                    torch.cat([before.codes, before.codes], dim=1),
                )
        return streams


class GeneratedObserver(MethodObserver):
    """Observes a method on pictures of its own generator, whose codes are known.

    Arguments are those of `MethodObserver`.
    """

    def __call__(
        self,
        images: Tensor,  # [N, 1, 1, z_dim], latents z
    ) -> Observations:
        """Returns the streams of `MethodObserver` for the pictures of z, and the responses."""
        generator = self.method.generator
        z = broadcast_rows(normalize_z(images.flatten(1)), generator.num_codes)
        w = broadcast_rows(generator.map(images.flatten(1)), generator.num_codes)
        pictures = self._generated(w)
        observed = {space: dict(streams) for space, streams in super().__call__(pictures).items()}
        asked = {n: edit for n, edit in self.edits.items() if response_of(n) in self.streams}
        for space, method in self.asked.items() if asked else ():
            inversion = method.invert(pictures)
            for name, moves in asked.items():
                edit = moves.of(inversion.space)
                before = method.mapped_for(inversion, edit.space).codes
                codes = w if edit.space.is_mapped else z
                moved = edit.move(codes)
                made = self._generated(moved if edit.space.is_mapped else generator.map(moved))
                after = method.mapped_for(method.invert(made), edit.space).codes
                observed[space][response_of(name)] = (after - before, moved - codes)
        return observed

    def _generated(self, codes: Tensor) -> Tensor:
        """Generates the pictures of codes as a method is given them."""
        made = self.method.generator.synthesize(codes)
        return at_input_size(made, self.shape).clamp(-1, 1)
