"""CLCAE as the official code has it, so that its checkpoints give exactly its outputs.

`AFPSP` of the official code for arXiv 2211.11448, whose 256, 512 (cars) and 1024 models
`clcae.pretrained.clcae` reads. What differs from the paper is told in `clcae.encoders.official`.
Deviation: the average image, which no official file holds, is a buffer here and in native files.
"""

from collections.abc import Sequence

from torch import Tensor

from clcae.data.transforms import height_and_width
from clcae.encoders.official import OfficialFeature, OfficialRows, initialize_officially
from clcae.encoders.pyramid import Pyramid
from clcae.methods.foundation import Encoding, FoundationInversion, Rule
from clcae.methods.interface import Inversion
from clcae.nn.style_head import StyleHead
from clcae.nn.trunk import IR_SE50
from clcae.serialization import register
from clcae.stylegan2 import Generator


@register("official_clcae")
class OfficialCLCAE(FoundationInversion):
    """The official encoder around a frozen generator; cars are read as (192, 256)."""

    def __init__(
        self,
        *,
        generator: Generator,
        image_size: int | Sequence[int] = 256,  # a side, or (H, W)
        layer: str = "16x16/1",  # idx_k = 5, which counts the constant
        stem_channels: int = 64,
        stages: Sequence[Sequence[int]] = IR_SE50,
        width: int = 512,
        dropout: float = 0.1,  # of the attention layers, in training
        edit_rule: Rule = "refined",
        resize: bool = True,  # synthesize at the input's size
    ) -> None:
        height, breadth = height_and_width(image_size)
        side, reduction = max(height, breadth), 1 << len(stages)
        if height % reduction or breadth % reduction or side > generator.resolution:
            raise ValueError(
                f"image_size is {height}x{breadth}, expected multiples of {reduction} up to the "
                f"generator's {generator.resolution}"
            )
        pyramid = Pyramid(
            stem_channels=stem_channels, stages=stages, stem_stride=1, width=width, num_levels=3
        )
        w_dim = generator.w_dim
        super().__init__(
            generator=generator,
            image_shape=(height, breadth),
            layer=layer,
            pyramid=pyramid,
            foundation=StyleHead(in_channels=width, out_dim=w_dim, side=pyramid.side(0, side)),
            rows=OfficialRows(
                pyramid=pyramid,
                num_rows=generator.num_codes,
                w_dim=w_dim,
                image_size=side,
                dropout=dropout,
            ),
            feature=OfficialFeature(
                in_channels=width,
                in_side=pyramid.side(2, side),
                w_dim=w_dim,
                out_shape=generator.feature_shape(generator.layer(layer)),
                dropout=dropout,
            ),
            feature_level=-1,
            subtract_average=True,
            edit_rule=edit_rule,
        )
        self.resize = resize
        for module in self.encoder_modules().values():
            initialize_officially(module)

    def feature_of(self, encoding: Encoding, own: Tensor) -> Tensor:
        return self.feature(encoding.level, encoding.w - self.generator.w_average)

    def synthesize(self, inversion: Inversion) -> Tensor:
        """Generates G(w+, f) at the input's size; with `resize: false` the whole square."""
        picture = super().synthesize(inversion)
        return self.at_input_size(picture) if self.resize else picture
