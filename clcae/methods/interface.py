"""What every inversion system is: invert, edit, synthesize."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from torch import Tensor, nn

from clcae.nn.folding import folded
from clcae.stylegan2 import Generator, LatentSpace, Layer

Move = Callable[[Tensor], Tensor]  # codes [N, L, D] -> codes of the same shape


@dataclass(frozen=True)
class Inversion:
    """What a method knows of a batch of images."""

    codes: Tensor  # [N, L, D], in `space`; equal rows where it is W or Z
    space: LatentSpace
    feature: Tensor | None = None  # [N, C, h, w] at the generator's `layer`
    layer: Layer | None = None
    context: Mapping[str, Tensor] = field(default_factory=dict)  # what this method needs to edit


class InversionMethod(nn.Module, ABC):
    """A system that inverts images into a generator's latent space and edits them there."""

    generator: Generator
    outputs: Sequence[str]  # what it can be asked for, the method's own choice last
    output: str  # what it is asked for
    derived: Sequence[str] = ()  # the entries of a context that follow from the rest

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int]:
        """(H, W) of the images that `invert` reads."""

    def with_output(self, output: str) -> Self:
        """The same networks, asked for another output: "W", "W+" or "F".

        Raises:
            ValueError: an output that this method has not.
        """
        if output not in self.outputs:
            raise ValueError(
                f"output is {output!r}, {type(self).__name__} has {', '.join(self.outputs)}"
            )
        other = copy.copy(self)  # modules and parameters are shared
        other.output = output
        return other

    def encoder_modules(self) -> Mapping[str, nn.Module]:
        """What training changes, by attribute: everything but the generator."""
        return {}

    def for_inference(self) -> Self:
        """The same results, within rounding, in less time; not to be trained or saved.

        The normalisations of its encoder are folded into the convolutions.
        """
        other = copy.copy(self)
        other._modules = dict(self._modules)  # a plain copy shares it
        for name, module in self.encoder_modules().items():
            other.add_module(name, folded(module))
        return other

    def reduced(self, inversion: Inversion) -> Inversion:
        """The inversion without what is derived, as a file keeps it."""
        kept = {key: value for key, value in inversion.context.items() if key not in self.derived}
        return replace(inversion, context=kept)

    def completed(self, inversion: Inversion) -> Inversion:
        """A reduced inversion with what is derived, computed anew."""
        return inversion

    @abstractmethod
    def invert(
        self,
        images: Tensor,  # [N, 3, *image_shape], in [-1, 1]
    ) -> Inversion:
        """Codes, and a feature where the method has one."""

    @abstractmethod
    def edit(self, inversion: Inversion, move: Move) -> Inversion:
        """The inversion with its codes moved, and its feature following."""

    @abstractmethod
    def synthesize(self, inversion: Inversion) -> Tensor:
        """[N, 3, H, W], about [-1, 1]."""
