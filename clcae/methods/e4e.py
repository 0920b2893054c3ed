"""pSp and e4e: images to W+ in one pass of the encoder, pictures from the generator alone.

Tov et al. 2021, "Designing an Encoder for StyleGAN Image Manipulation" (arXiv 2102.02766, SIGGRAPH
2021), and Richardson et al. 2021, "Encoding in Style" (arXiv 2008.00951, CVPR 2021), from whom it
takes all but how the heads are read; `pSp` of both official codes. Deviation: `synthesize` gives
the generator's own resolution; `reconstruct` averages to the input's, the official default of 256.
"""

from collections.abc import Sequence

from clcae.data.transforms import height_and_width
from clcae.encoders.e4e import GradualEncoder, ProgressiveEncoder
from clcae.methods.one_pass import OnePassInversion
from clcae.nn.trunk import IR_SE50
from clcae.serialization import register
from clcae.stylegan2 import Generator


@register("psp")
class PSP(OnePassInversion):
    """Every head is a row of W+ (pSp)."""

    def __init__(
        self,
        *,
        generator: Generator,
        image_size: int | Sequence[int] = 256,  # a side, or (H, W); cars are (192, 256)
        stem_channels: int = 64,
        stages: Sequence[Sequence[int]] = IR_SE50,
        stem_stride: int = 1,
        width: int = 512,
    ) -> None:
        shape = height_and_width(image_size)
        encoder = GradualEncoder(
            num_rows=generator.num_codes,
            w_dim=generator.w_dim,
            image_size=max(shape),
            stem_channels=stem_channels,
            stages=stages,
            stem_stride=stem_stride,
            width=width,
        )
        super().__init__(generator=generator, encoder=encoder, shape=shape)

    @property
    def label(self) -> str:
        return "pSp"


@register("e4e")
class E4E(OnePassInversion):
    """The first head is w, the others are offsets of their rows from it (e4e).

    Raises:
        ValueError: if `num_offsets` is not below the generator's number of rows.
    """

    encoder: ProgressiveEncoder  # whose `stage` training raises

    def __init__(
        self,
        *,
        generator: Generator,
        image_size: int | Sequence[int] = 256,  # a side, or (H, W); cars are (192, 256)
        stem_channels: int = 64,
        stages: Sequence[Sequence[int]] = IR_SE50,
        stem_stride: int = 1,
        width: int = 512,
        num_offsets: int | None = None,  # rows with an offset; 0: an encoder of W; None: all
    ) -> None:
        rows = generator.num_codes
        num_offsets = rows - 1 if num_offsets is None else num_offsets
        if not 0 <= num_offsets < rows:
            raise ValueError(f"num_offsets is {num_offsets}, expected 0 to {rows - 1}")
        shape = height_and_width(image_size)
        encoder = ProgressiveEncoder(
            num_rows=generator.num_codes,
            w_dim=generator.w_dim,
            image_size=max(shape),
            stem_channels=stem_channels,
            stages=stages,
            stem_stride=stem_stride,
            width=width,
            num_heads=num_offsets + 1,
        )
        super().__init__(generator=generator, encoder=encoder, shape=shape)
        if num_offsets == 0:
            self.outputs, self.output = ("W",), "W"

    @property
    def label(self) -> str:
        return "W encoder" if self.output == "W" else "e4e"
