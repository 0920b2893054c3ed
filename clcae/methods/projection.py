"""Inversion by optimising the code, as a method: the classical baseline of every encoder.

Abdal et al. 2019 (Image2StyleGAN) in W+, Karras et al. 2020, appendix D, in W; the search itself
and its deviations are `clcae.methods.optimization`. It is deterministic, slow, and has nothing to
learn: without any step it is the generator's average code, below which no method should fall. A
code found in W+ reconstructs well and edits badly, since nothing keeps it where the generator was
trained (Tov et al. 2021).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from clcae.methods.interface import Inversion, InversionMethod
from clcae.methods.optimization import project
from clcae.serialization import register
from clcae.stylegan2 import Generator, LatentSpace, broadcast_rows

SPACES = {"W": LatentSpace.W, "W+": LatentSpace.W_PLUS}


@register("projection")
class Projection(InversionMethod):
    """Codes whose pictures come nearest to the images, found by gradient descent.

    Args:
        generator: Frozen.
        steps: Of Adam, for every batch of images; 0 leaves the mean of W.
        lr: Highest learning rate.
        output: "W" or "W+".

    Raises:
        ValueError: A negative number of steps, a learning rate that is not positive, or another
            output.
    """

    outputs: Sequence[str] = tuple(SPACES)

    def __init__(
        self, *, generator: Generator, steps: int = 500, lr: float = 0.1, output: str = "W+"
    ) -> None:
        super().__init__()
        if steps < 0 or lr <= 0:
            raise ValueError(f"{steps} steps with a learning rate of {lr}: expected 0 up, above 0")
        if output not in SPACES:
            raise ValueError(f"output is {output!r}, Projection has {', '.join(SPACES)}")
        self.generator = generator
        self.steps, self.lr, self.output = steps, lr, output

    @property
    def image_shape(self) -> tuple[int, int]:
        """(H, W) of the images that `invert` reads: those of the generator."""
        return self.generator.resolution, self.generator.resolution

    def invert(self, images: Tensor) -> Inversion:
        """Codes; every picture is treated by itself, whatever the batch.

        Raises:
            ValueError: Images of another size than the generator's.
        """
        space = SPACES[self.output]
        with torch.inference_mode(False):  # gradients are wanted, whoever asks
            codes = project(
                self.generator, images.clone(), space=space, steps=self.steps, lr=self.lr
            )
        return Inversion(codes=broadcast_rows(codes, self.generator.num_codes), space=space)
