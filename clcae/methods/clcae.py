"""CLCAE: foundation code in W, cross-attention to W+ and to the feature F.

"Delving StyleGAN Inversion for Image Editing: A Foundation Latent Space Viewpoint" (arXiv
2211.11448, CVPR 2023), section 3.2; `AFPSP` of the official code. Where paper and code differ the
paper is followed. Deviations: attention over many tokens (the paper's one-token form is
`attention: one_token`), W+ starts at w and F at the generator's own feature, and the foundation
code is measured from the mean of W.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from clcae.encoders.feature import FeatureEncoder
from clcae.encoders.pyramid import Pyramid
from clcae.encoders.w_plus import ManyTokenRows, OneTokenRows
from clcae.methods.interface import Inversion, InversionMethod, Move
from clcae.nn.style_head import StyleHead
from clcae.serialization import register
from clcae.stylegan2 import Generator, LatentSpace, broadcast_rows
from clcae.stylegan2.synthesis import NoiseMode, Prefix

Attention = Literal["many_token", "one_token"]
Rule = Literal["refined", "foundation"]


@dataclass(frozen=True)
class Encoding:
    """What the encoder makes of images before any synthesis of F."""

    w: Tensor  # [N, w_dim], the foundation code
    w_plus: Tensor  # [N, L, w_dim]
    level: Tensor  # [N, C, h, w], the pyramid level F is made from


@register("clcae")
class CLCAE(InversionMethod):
    """The encoder of stage 2 around a frozen generator."""

    average_image: Tensor

    def __init__(
        self,
        *,
        generator: Generator,
        image_size: int,
        layer: str = "16x16/1",  # G^5 of the paper
        stem_channels: int = 64,
        stages: Sequence[Sequence[int]] = ((64, 3), (128, 4), (256, 14), (512, 3)),  # IR-SE50
        stem_stride: int = 1,
        width: int = 512,
        num_levels: int = 3,
        feature_level: int = -1,  # of the pyramid, coarsest first; T3 is the last
        feature_hidden: int = 512,
        attention: Attention = "many_token",
        subtract_average: bool = True,
        edit_rule: Rule = "refined",
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            "generator": generator,
            "image_size": image_size,
            "layer": layer,
            "stem_channels": stem_channels,
            "stages": [list(stage) for stage in stages],
            "stem_stride": stem_stride,
            "width": width,
            "num_levels": num_levels,
            "feature_level": feature_level,
            "feature_hidden": feature_hidden,
            "attention": attention,
            "subtract_average": subtract_average,
            "edit_rule": edit_rule,
        }
        if attention not in ("many_token", "one_token"):
            raise ValueError(f"attention is {attention!r}, expected 'many_token' or 'one_token'")
        if edit_rule not in ("refined", "foundation"):
            raise ValueError(f"edit_rule is {edit_rule!r}, expected 'refined' or 'foundation'")
        self.generator = generator
        self.layer = generator.layer(layer)
        self.image_size = image_size
        self.subtract_average = subtract_average
        self.edit_rule: Rule = edit_rule
        self.feature_level = feature_level
        self.pyramid = Pyramid(
            stem_channels=stem_channels,
            stages=stages,
            stem_stride=stem_stride,
            width=width,
            num_levels=num_levels,
        )
        w_dim, num_rows = generator.w_dim, generator.num_codes
        self.foundation = StyleHead(
            in_channels=width, out_dim=w_dim, side=self.pyramid.side(0, image_size)
        )
        rows = ManyTokenRows if attention == "many_token" else OneTokenRows
        self.rows = rows(
            pyramid=self.pyramid, num_rows=num_rows, w_dim=w_dim, image_size=image_size
        )
        self.feature = FeatureEncoder(
            in_channels=width,
            in_side=self.pyramid.side(feature_level % num_levels, image_size),
            w_dim=w_dim,
            num_rows=num_rows,
            out_shape=generator.feature_shape(self.layer),
            hidden=feature_hidden,
            one_token=attention == "one_token",
        )
        self.register_buffer("average_image", torch.zeros(3, image_size, image_size))

    def encoder_modules(self) -> Mapping[str, torch.nn.Module]:
        """What stage 2 trains: everything but the generator."""
        return {
            "pyramid": self.pyramid,
            "foundation": self.foundation,
            "rows": self.rows,
            "feature": self.feature,
        }

    def encode(
        self,
        images: Tensor,  # [N, 3, image_size, image_size], in [-1, 1]
        *,
        foundation: Tensor | None = None,  # [N, w_dim]
    ) -> Encoding:
        """w and W+. A given `foundation` takes the place of the head's own w and is refined."""
        if images.ndim != 4 or images.shape[1:] != self.average_image.shape:
            raise ValueError(
                f"images have shape {tuple(images.shape)}, this encoder reads "
                f"[N, 3, {self.image_size}, {self.image_size}]"
            )
        if self.subtract_average:
            images = images - self.average_image
        levels = self.pyramid(images)
        average = self.generator.w_average
        w = average + self.foundation(levels[0]) if foundation is None else foundation
        offset = w - average
        w_plus = w[:, None] + self.rows(offset, levels)
        return Encoding(w=w, w_plus=w_plus, level=levels[self.feature_level])

    def feature_of(self, encoding: Encoding, own: Tensor) -> Tensor:
        """f, given the generator's own feature [N, C, R, R] of the W+ code."""
        average = self.generator.w_average
        return self.feature(encoding.level, encoding.w - average, encoding.w_plus - average, own)

    def pictures(
        self, encoding: Encoding, *, noise: NoiseMode = "const"
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """G(w), G(w+) and G(w+, f) by name, f, and the generator's own feature.

        G(w+) and G(w+, f) share everything up to the layer of f, which is computed once.
        """
        generator = self.generator
        prefix = generator.begin(encoding.w_plus, self.layer, noise=noise)
        feature = self.feature_of(encoding, prefix.feature)
        blended = Prefix(prefix.layer, feature, prefix.rgb)
        pictures = {
            "W": generator.synthesize(encoding.w, noise=noise),
            "W+": generator.finish(prefix, encoding.w_plus, noise=noise),
            "F": generator.finish(blended, encoding.w_plus, noise=noise),
        }
        return pictures, feature, prefix.feature

    def reconstructions(self, images: Tensor) -> dict[str, Tensor]:
        """The three outputs by name, [N, 3, H, W] each."""
        return self.pictures(self.encode(images))[0]

    def reconstruct(self, images: Tensor, output: str) -> Tensor:
        """One output alone, "W", "W+" or "F", at no more than its own cost."""
        encoding = self.encode(images)
        if output == "W":
            return self.generator.synthesize(encoding.w)
        if output == "W+":
            return self.generator.synthesize(encoding.w_plus)
        prefix = self.generator.begin(encoding.w_plus, self.layer)
        blended = Prefix(prefix.layer, self.feature_of(encoding, prefix.feature), prefix.rgb)
        return self.generator.finish(blended, encoding.w_plus)

    def invert(self, images: Tensor) -> Inversion:
        """W+ codes with the feature f; the context keeps what edits need."""
        encoding = self.encode(images)
        own = self.generator.features(encoding.w_plus, self.layer)
        return Inversion(
            codes=encoding.w_plus,
            space=LatentSpace.W_PLUS,
            feature=self.feature_of(encoding, own),
            layer=self.layer,
            context={"w": encoding.w, "own": own, "images": images},
        )

    def edit(self, inversion: Inversion, move: Move) -> Inversion:
        """The paper's rule: f + G(w+ edited) - G(w+), features at the layer of f.

        With `edit_rule: foundation` (the official InterFaceGAN script) the foundation code is moved
        before it is refined, and f is the encoder's own for the moved code, plus the same
        difference.
        """
        assert inversion.feature is not None
        context = dict(inversion.context)
        if self.edit_rule == "refined":
            codes = broadcast_rows(move(inversion.codes), self.generator.num_codes)
            own = self.generator.features(codes, self.layer)
            feature = inversion.feature + own - context["own"]
            context["own"] = own  # of the codes the feature now belongs to
        else:
            context["w"] = move(context["w"][:, None])[:, 0]
            encoding = self.encode(context["images"], foundation=context["w"])
            codes = encoding.w_plus
            own = self.generator.features(codes, self.layer)
            feature = self.feature_of(encoding, context["own"]) + own - context["own"]
        return replace(inversion, codes=codes, feature=feature, context=context)

    def synthesize(self, inversion: Inversion) -> Tensor:
        """G(w+, f)."""
        feature = inversion.feature
        assert feature is not None and inversion.layer is not None
        return self.generator.synthesize(inversion.codes, at=(inversion.layer, lambda own: feature))
