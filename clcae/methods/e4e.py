"""pSp and e4e: images to W+ in one pass of the encoder, pictures from the generator alone.

Tov et al. 2021, "Designing an Encoder for StyleGAN Image Manipulation" (arXiv 2102.02766, SIGGRAPH
2021), and Richardson et al. 2021, "Encoding in Style" (arXiv 2008.00951, CVPR 2021), from whom it
takes all but how the heads are read; `pSp` of both official codes. Deviation: `synthesize` gives
the generator's own resolution; `reconstruct` averages to the input's, the official default of 256.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from clcae.data.transforms import height_and_width
from clcae.encoders.e4e import GradualEncoder, ProgressiveEncoder
from clcae.methods.interface import Inversion, InversionMethod
from clcae.nn.trunk import IR_SE50
from clcae.serialization import register
from clcae.stylegan2 import Generator, LatentSpace, broadcast_rows


class _OnePass(InversionMethod):
    """What pSp and e4e share: all but the reading of the heads."""

    outputs = ("W+",)
    output = "W+"
    latent_average: Tensor
    encoder_type: type[GradualEncoder]

    def __init__(
        self,
        *,
        generator: Generator,
        image_size: int | Sequence[int] = 256,  # a side, or (H, W); cars are (192, 256)
        stem_channels: int = 64,
        stages: Sequence[Sequence[int]] = IR_SE50,
        width: int = 512,
    ) -> None:
        super().__init__()
        self.generator = generator
        self.shape = height_and_width(image_size)
        self.encoder = self.encoder_type(
            num_rows=generator.num_codes,
            w_dim=generator.w_dim,
            image_size=max(self.shape),
            stem_channels=stem_channels,
            stages=stages,
            width=width,
        )
        # Official files keep a row a layer, so it is kept apart from the generator's own average.
        average = broadcast_rows(generator.w_average[None], generator.num_codes)[0].clone()
        self.register_buffer("latent_average", average)

    @property
    def image_shape(self) -> tuple[int, int]:
        """(H, W) of the images that `invert` reads; any with the same longer side is taken."""
        return self.shape

    def encoder_modules(self) -> Mapping[str, nn.Module]:
        """What training changes: everything but the generator."""
        return {"encoder": self.encoder}

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """Codes of W+ [N, L, w_dim]."""

    def invert(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]; the longer side is image_size
    ) -> Inversion:
        """W+ codes. Raises ValueError for images of another shape."""
        return Inversion(codes=self.encode(images), space=LatentSpace.W_PLUS)


@register("psp")
class PSP(_OnePass):
    """Every head is a row of W+ (pSp)."""

    encoder_type = GradualEncoder
    encoder: GradualEncoder

    def encode(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]; the longer side is image_size
    ) -> Tensor:
        """Codes of W+ [N, L, w_dim]."""
        return self.encoder(images) + self.latent_average


@register("e4e")
class E4E(_OnePass):
    """The first head is w, the others are offsets of their rows from it (e4e)."""

    encoder_type = ProgressiveEncoder
    encoder: ProgressiveEncoder

    def encode(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]; the longer side is image_size
        *,
        stage: int | None = None,
    ) -> Tensor:
        """Codes of W+ [N, L, w_dim]; `stage` as in ProgressiveEncoder."""
        return self.encoder(images, stage=stage) + self.latent_average
