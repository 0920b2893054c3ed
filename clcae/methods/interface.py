"""What every inversion system is: invert, edit, synthesize."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from clcae.stylegan2 import Generator, LatentSpace, Layer

Move = Callable[[Tensor], Tensor]  # codes [N, L, D] -> codes of the same shape


@dataclass(frozen=True)
class Inversion:
    """What a method knows of a batch of images."""

    codes: Tensor  # [N, L, D], in `space`
    space: LatentSpace
    feature: Tensor | None = None  # [N, C, h, w] at the generator's `layer`
    layer: Layer | None = None
    context: Mapping[str, Tensor] = field(default_factory=dict)  # what this method needs to edit


class InversionMethod(nn.Module, ABC):
    """A system that inverts images into a generator's latent space and edits them there."""

    generator: Generator

    @abstractmethod
    def invert(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]
    ) -> Inversion:
        """Codes, and a feature where the method has one."""

    @abstractmethod
    def edit(self, inversion: Inversion, move: Move) -> Inversion:
        """The inversion with its codes moved, and its feature following."""

    @abstractmethod
    def synthesize(self, inversion: Inversion) -> Tensor:
        """[N, 3, H, W], about [-1, 1]."""
