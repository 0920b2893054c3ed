"""Base of pSp, e4e and the methods on top of them: W+ in one pass of an encoder.

Richardson et al. 2021, "Encoding in Style" (arXiv 2008.00951, CVPR 2021), section 3.1; `pSp` of
the official codes. A subclass builds the encoder, which says how its heads are read.
"""

from collections.abc import Sequence

from torch import Tensor

from clcae.encoders.e4e import GradualEncoder
from clcae.methods.interface import Inversion, InversionMethod
from clcae.stylegan2 import Generator, LatentSpace, broadcast_rows


class OnePassInversion(InversionMethod):
    """An encoder with a head for every row of W+; subclasses say how the heads are read."""

    outputs: Sequence[str] = ("W+",)
    output = "W+"
    latent_average: Tensor

    def __init__(
        self,
        *,
        generator: Generator,
        encoder: GradualEncoder,
        shape: tuple[int, int],  # (H, W) of the images
    ) -> None:
        super().__init__()
        self.generator = generator
        self.shape = shape
        self.encoder = encoder
        # Official files keep a row a layer, so it is kept apart from the generator's own average.
        average = broadcast_rows(generator.w_average[None], generator.num_codes)[0].clone()
        self.register_buffer("latent_average", average)

    @property
    def image_shape(self) -> tuple[int, int]:
        """(H, W) of the images that `invert` reads; any with the same longer side is taken."""
        return self.shape

    def encode(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]; the longer side is that of image_shape
    ) -> Tensor:
        """Computes codes of W+ [N, L, w_dim].

        Raises:
            ValueError: if images have another longer side.
        """
        return self.encoder(images) + self.latent_average

    def invert(self, images: Tensor) -> Inversion:
        return Inversion(codes=self.encode(images), space=LatentSpace(self.output))
