"""The interface of every inversion method: invert, edit, synthesize, reconstruct.

The generator is StyleGAN2 (`clcae.stylegan2.Generator`); no other family is supported. Codes
may be of Z, Z+, W or W+, as `Inversion.space` says. Those of Z and Z+ go through the mapping
network whenever a picture is made. It normalises them, so a move may leave the sphere; those of
`editing` walk along it (`clcae.stylegan2.walk`).
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor, nn

from clcae.data.transforms import at_input_size
from clcae.nn.folding import folded
from clcae.precision import Precision
from clcae.stylegan2 import Generator, LatentSpace, Layer, broadcast_rows

Move = Callable[[Tensor], Tensor]  # codes [N, L, D] -> codes of the same shape

# The names an output may have: the space of codes alone; F, codes of W+ with a feature map by a
# method's own rule; F/Z+ and its like, codes of that space with a feature that replaces the
# generator's own.
OUTPUTS = (
    *(space.value for space in LatentSpace),
    "F",
    *(f"F/{space.value}" for space in LatentSpace),
)


def parse_output(output: str) -> tuple[LatentSpace, bool]:
    """Returns the space of an output's codes, and whether it has a feature: Z+, True of "F/Z+".

    Raises:
        ValueError: if it is none of `OUTPUTS`.
    """
    if output not in OUTPUTS:
        raise ValueError(f"output is {output!r}, expected one of {', '.join(OUTPUTS)}")
    name, _, space = output.partition("/")
    if name != "F":
        return LatentSpace(name), False
    return LatentSpace(space or "W+"), True


@dataclass(frozen=True)
class Inversion:
    """The inversion of a batch of images."""

    codes: Tensor  # [N, L, D], in `space`; equal rows where it is W or Z
    space: LatentSpace
    feature: Tensor | None = None  # [N, C, h, w] at the generator's `layer`
    layer: Layer | None = None
    context: Mapping[str, Tensor] = field(default_factory=dict)  # what this method needs to edit


class InversionMethod(nn.Module, ABC):
    """A system that inverts images into a generator's latent space and edits them there.

    `invert` and `image_shape` are a method's own. The rest has defaults that fit methods whose
    inversions are codes alone; a method with a feature map overrides `edit` and `synthesize`, and
    `reconstruct` and `reconstructions` where several outputs share work.
    """

    generator: Generator
    outputs: Sequence[str]  # names out of OUTPUTS, the method's best last
    output: str  # the one that `invert` computes
    derived: Sequence[str] = ()  # the entries of a context that follow from the rest

    @property
    def label(self) -> str:
        """Name in tables: that of the class."""
        return type(self).__name__

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int]:
        """(H, W) of the images that `invert` reads."""

    @property
    def device(self) -> torch.device:
        """Device of the weights, and of the images that `invert` takes."""
        return self.generator.w_average.device

    @property
    def at_once(self) -> int:
        """Number of images to give to `invert` at a time: by default as many as to the generator.

        Less where an image takes long and nothing is won by more, so that one after the other is
        finished.
        """
        return self.generator.at_once

    def with_output(self, output: str) -> Self:
        """Returns a copy that computes another output with the same weights. Raises ValueError."""
        if output not in self.outputs:
            raise ValueError(
                f"output is {output!r}, {type(self).__name__} has {', '.join(self.outputs)}"
            )
        other = copy.copy(self)  # modules and parameters are shared
        other.output = output
        return other

    def with_generator(self, generator: Generator) -> Self:
        """Returns a copy around another generator of the same layout; all else is shared."""
        other = copy.copy(self)
        other._modules = dict(self._modules)  # a plain copy shares it
        other.add_module("generator", generator)
        return other

    def encoder_modules(self) -> Mapping[str, nn.Module]:
        """Modules that training changes, by attribute name: all but the generator."""
        return {name: module for name, module in self.named_children() if name != "generator"}

    @property
    def precision(self) -> Precision:
        """In which the method computes; float32 but for what `for_inference` returns."""
        return self.generator.precision

    def for_inference(self, precision: Precision = "float32") -> Self:
        """Returns a faster copy for inference, equal within rounding; not to be trained or saved.

        Folds the normalisations of all modules but the generator into their convolutions. In
        bfloat16 (`clcae.precision`) codes, features and pictures are float32 all the same, and
        whatever is searched by gradients is searched in float32.
        """
        other = copy.copy(self)
        other._modules = dict(self._modules)  # a plain copy shares it
        for name, module in self.named_children():
            if name != "generator":
                other.add_module(name, folded(module, precision))
        if precision != self.precision:
            other.add_module("generator", self.generator.for_inference(precision))
        return other

    def reduced(self, inversion: Inversion) -> Inversion:
        """Removes the derived entries of the context; an inversion file stores the rest."""
        kept = {key: value for key, value in inversion.context.items() if key not in self.derived}
        return replace(inversion, context=kept)

    def completed(self, inversion: Inversion) -> Inversion:
        """Recomputes the derived entries that `reduced` removed."""
        return inversion

    @abstractmethod
    def invert(
        self,
        images: Tensor,  # [N, 3, *image_shape], in [-1, 1]
    ) -> Inversion:
        """Computes codes, and a feature for output "F"."""

    def form(self) -> Inversion:
        """Returns an inversion whose tensors have the shapes and types of any of this method's.

        That of a grey picture; methods that search or tune answer without doing so.
        """
        return self.invert(torch.zeros(1, 3, *self.image_shape, device=self.device))

    def mapped(self, inversion: Inversion) -> Inversion:
        """Maps codes of Z to W and of Z+ to W+; returns codes of W and W+ unchanged."""
        if inversion.space.is_mapped:
            return inversion
        if inversion.space is LatentSpace.Z_PLUS:
            codes = self.generator.map(inversion.codes)
            return replace(inversion, codes=codes, space=LatentSpace.W_PLUS)
        w = self.generator.map(inversion.codes[:, 0])
        codes = broadcast_rows(w, self.generator.num_codes)
        return replace(inversion, codes=codes, space=LatentSpace.W)

    def mapped_for(self, inversion: Inversion, space: LatentSpace) -> Inversion:
        """Maps codes of Z and Z+ where a move of W or W+ is to act on them.

        Raises:
            ValueError: if the move is of Z and the codes are of W: the mapping has no inverse.
        """
        if space.is_mapped:
            return self.mapped(inversion)
        if inversion.space.is_mapped:
            raise ValueError(f"a move of {space} cannot act on codes of {inversion.space}")
        return inversion

    def edit(self, inversion: Inversion, move: Move) -> Inversion:
        """Applies a move to the codes; a feature follows by the method's own rule.

        Codes of Z or W whose rows the move makes unequal are returned as Z+ or W+.

        Raises:
            ValueError: if the move returns codes of another number of rows.
        """
        return self._with_codes(inversion, move(inversion.codes))

    def synthesize(self, inversion: Inversion) -> Tensor:
        """Generates the pictures [N, 3, H, W] of an inversion, about [-1, 1], not clamped."""
        return self.generator.synthesize(self.mapped(inversion).codes)

    def reconstruct(self, images: Tensor, output: str | None = None) -> Tensor:
        """Inverts images and synthesizes one output in the shape of the images.

        Args:
            images: [N, 3, *image_shape], in [-1, 1].
            output: one of `outputs`; None takes `self.output`.

        Raises:
            ValueError: if the method lacks this output, or images have another shape.
        """
        method = self.with_output(self.output if output is None else output)
        return at_input_size(method.synthesize(method.invert(images)), images.shape[-2:])

    def reconstructions(self, images: Tensor) -> dict[str, Tensor]:
        """Reconstructs images in every output, by name; each as large as the images."""
        return {output: self.reconstruct(images, output) for output in self.outputs}

    def _with_codes(self, inversion: Inversion, codes: Tensor) -> Inversion:
        """Replaces the codes; names the space with rows of their own where rows now differ."""
        codes = broadcast_rows(codes, self.generator.num_codes)
        space = inversion.space
        if not space.has_rows and bool((codes != codes[:, :1]).any()):
            space = space.with_rows
        return replace(inversion, codes=codes, space=space)
