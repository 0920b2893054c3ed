"""e4e with heads of Z: every row is put on the sphere and mapped by the frozen mapping network.

Tov et al. 2021, "Designing an Encoder for StyleGAN Image Manipulation" (arXiv 2102.02766, SIGGRAPH
2021), with codes of Z+ ("Revisiting Latent Space of GAN Inversion", arXiv 2307.08995; its workshop
version, 2306.00241, claims such an encoder and its code has none, so that what is here is ours).
The first head is z, the others are offsets of their rows from it. Every row is a code that the
generator was trained with, or nearly: what may leave its domain is their disagreement.

There is no mean to start from, since the mean of W has no pre-image: z is what the head says.
"""

from collections.abc import Sequence

from torch import Tensor

from clcae.data.transforms import height_and_width
from clcae.encoders.e4e import ProgressiveEncoder
from clcae.methods.interface import Inversion, InversionMethod
from clcae.nn.trunk import IR_SE50
from clcae.serialization import register
from clcae.stylegan2 import Generator, LatentSpace, normalize_z


@register("e4e_z_plus")
class E4EZPlus(InversionMethod):
    """An encoder of Z+, of Z without offsets.

    Raises:
        ValueError: if `num_offsets` is not below the generator's number of rows.
    """

    def __init__(
        self,
        *,
        generator: Generator,
        image_size: int | Sequence[int] = 256,  # a side, or (H, W); cars are (192, 256)
        stem_channels: int = 64,
        stages: Sequence[Sequence[int]] = IR_SE50,
        stem_stride: int = 1,
        width: int = 512,
        num_offsets: int | None = None,  # rows with an offset; 0: an encoder of Z; None: all
    ) -> None:
        super().__init__()
        rows = generator.num_codes
        num_offsets = rows - 1 if num_offsets is None else num_offsets
        if not 0 <= num_offsets < rows:
            raise ValueError(f"num_offsets is {num_offsets}, expected 0 to {rows - 1}")
        self.output = "Z+" if num_offsets else "Z"
        self.outputs = (self.output,)
        self.generator = generator
        self.shape = height_and_width(image_size)
        self.encoder = ProgressiveEncoder(
            num_rows=rows,
            w_dim=generator.z_dim,
            image_size=max(self.shape),
            stem_channels=stem_channels,
            stages=stages,
            stem_stride=stem_stride,
            width=width,
            num_heads=num_offsets + 1,
        )

    @property
    def label(self) -> str:
        return "Z encoder" if self.output == "Z" else "e4e Z+"

    @property
    def image_shape(self) -> tuple[int, int]:
        """(H, W) of the images that `invert` reads; any with the same longer side is taken."""
        return self.shape

    def invert(self, images: Tensor) -> Inversion:
        """Computes codes of Z+ or Z, on the sphere of radius sqrt(z_dim).

        Raises:
            ValueError: if images have another longer side.
        """
        codes = normalize_z(self.encoder(images))
        return Inversion(codes=codes, space=LatentSpace(self.output))

    def encode(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]; the longer side is that of image_shape
    ) -> Tensor:
        """Computes the codes after the mapping, of W+ [N, L, w_dim]. Raises as `invert`."""
        return self.generator.map(normalize_z(self.encoder(images)))
