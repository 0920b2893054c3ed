"""CLCAE: foundation code in W, cross-attention to W+ and to the feature F.

"Delving StyleGAN Inversion for Image Editing: A Foundation Latent Space Viewpoint" (arXiv
2211.11448, CVPR 2023), section 3.2; `AFPSP` of the official code. Where paper and code differ the
paper is followed (`OfficialCLCAE` follows the code). Deviations: attention over many tokens (the
paper's one-token form is `attention: one_token`, its ablation `none`), W+ starts at w and F at the
generator's own feature, and the foundation code is measured from the mean of W.
"""

from collections.abc import Sequence

from torch import Tensor

from clcae.data.transforms import height_and_width
from clcae.encoders.feature import FeatureEncoder
from clcae.encoders.pyramid import Pyramid
from clcae.encoders.w_plus import HeadRows, ManyTokenRows, OneTokenRows
from clcae.methods.foundation import Encoding, FoundationInversion, Rule
from clcae.nn.attention import Attention, check_attention
from clcae.nn.style_head import StyleHead
from clcae.nn.trunk import IR_SE50
from clcae.serialization import register
from clcae.stylegan2 import Generator

ROWS = {"many_token": ManyTokenRows, "one_token": OneTokenRows, "none": HeadRows}


@register("clcae")
class CLCAE(FoundationInversion):
    """The encoder of the paper around a frozen generator."""

    def __init__(
        self,
        *,
        generator: Generator,
        image_size: int | Sequence[int],  # a side, or (H, W)
        layer: str = "16x16/1",  # G^5 of the paper
        stem_channels: int = 64,
        stages: Sequence[Sequence[int]] = IR_SE50,
        stem_stride: int = 1,
        width: int = 512,
        num_levels: int = 3,
        feature_level: int = -1,  # of the pyramid, coarsest first; T3 is the last
        feature_hidden: int = 512,
        attention: Attention = "many_token",  # of the rows of W+
        feature_attention: Attention | None = None,  # of F; None: as that of the rows
        subtract_average: bool = True,
        edit_rule: Rule = "refined",
    ) -> None:
        feature_attention = feature_attention or attention
        check_attention(attention, "attention")
        check_attention(feature_attention, "feature_attention")
        if not -num_levels <= feature_level < num_levels:
            raise ValueError(f"feature_level is {feature_level} of {num_levels} levels")
        shape = height_and_width(image_size)
        w_dim, num_rows = generator.w_dim, generator.num_codes
        pyramid = Pyramid(
            stem_channels=stem_channels,
            stages=stages,
            stem_stride=stem_stride,
            width=width,
            num_levels=num_levels,
        )
        super().__init__(
            generator=generator,
            image_shape=shape,
            layer=layer,
            pyramid=pyramid,
            foundation=StyleHead(
                in_channels=width, out_dim=w_dim, side=pyramid.side(0, max(shape))
            ),
            rows=ROWS[attention](
                pyramid=pyramid, num_rows=num_rows, w_dim=w_dim, image_shape=shape
            ),
            feature=FeatureEncoder(
                in_channels=width,
                in_side=pyramid.side(feature_level % num_levels, max(shape)),
                w_dim=w_dim,
                num_rows=num_rows,
                out_shape=generator.feature_shape(generator.layer(layer)),
                hidden=feature_hidden,
                attention=feature_attention,
            ),
            feature_level=feature_level,
            subtract_average=subtract_average,
            edit_rule=edit_rule,
        )

    def feature_of(self, encoding: Encoding, own: Tensor) -> Tensor:
        average = self.generator.w_average
        return self.feature(encoding.level, encoding.w - average, encoding.w_plus - average, own)
