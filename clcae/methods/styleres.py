"""StyleRes: W+ of a frozen e4e, and a residual of the feature that follows every edit.

"StyleRes: Transforming the Residuals for Real Image Editing with StyleGAN" (arXiv 2212.14359, CVPR
2023), section 3; `E4E_Inversion` and the changed `Generator` of the official code. E0, a frozen
e4e, gives W+ and a feature of its trunk. E1 makes the residual F_a of that and of the generator's
own feature for the codes of the image; E2 fits F_a to the feature of the codes that are
synthesized, edited or not, and the rest of the generator goes on with the sum.

An inversion's `feature` is F_a, and `synthesize` runs E2. Where paper and code differ the paper is
the default: it adds the output of E2, the code gates it (`fusion: gate`, as official files need).
Two further values are the paper's ablations: `fusion: none` has no E2, `source: skip` no E1.

Known deviations: the sizes of all parts are arguments, whose defaults are the official ones; the
skip feature of images that are not square (cars, whose file was never released) is padded to a
square; `synthesize` gives the generator's own resolution, `reconstruct` averages to the input's.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Self, get_args

import torch
from torch import Tensor, nn

from clcae.data.transforms import at_input_size, height_and_width
from clcae.encoders.e4e import ProgressiveEncoder
from clcae.encoders.styleres import (
    SOURCES,
    TRANSFORMS,
    Fusion,
    Injection,
    Source,
)
from clcae.methods.interface import Inversion, Move
from clcae.methods.one_pass import OnePassInversion
from clcae.nn.trunk import IR_SE50
from clcae.serialization import register
from clcae.stylegan2 import Generator, LatentSpace
from clcae.stylegan2.synthesis import NoiseMode, Prefix

SAME_CODES = 0.02  # relative distance of codes that two generators map, of which one may be halved


@register("styleres")
class StyleRes(OnePassInversion):
    """Frozen e4e, E1 and E2 around a frozen generator.

    Raises:
        ValueError: if the trunk has no output as large as the generator's feature, for a layer that
            the generator lacks, an unknown fusion or source, a residual width below 2, or without
            E2 a residual that has not the channels of the layer.
    """

    outputs = ("W+", "F")
    output = "F"
    derived = ("own", "rgb")  # the generator's feature and RGB of the codes at the layer
    encoder: ProgressiveEncoder  # E0

    def __init__(
        self,
        *,
        generator: Generator,
        image_size: int | Sequence[int] = 256,  # a side, or (H, W); cars are (192, 256)
        layer: str = "64x64/0",  # behind which the residual is added
        stem_channels: int = 64,
        stages: Sequence[Sequence[int]] = IR_SE50,
        stem_stride: int = 1,
        width: int = 512,  # of e4e's pyramid
        residual_width: int | None = None,  # of E1 and E2; None: the channels of the layer
        fusion: Fusion = "sum",  # of the paper; the official code: "gate"; without E2: "none"
        source: Source = "e1",  # of the residual; without E1: "skip", the feature of the trunk
    ) -> None:
        if fusion not in get_args(Fusion):
            raise ValueError(f"fusion is {fusion!r}, expected 'sum', 'gate' or 'none'")
        if source not in get_args(Source):
            raise ValueError(f"source is {source!r}, expected 'e1' or 'skip'")
        shape = height_and_width(image_size)
        encoder = ProgressiveEncoder(
            num_rows=generator.num_codes,
            w_dim=generator.w_dim,
            image_size=max(shape),
            stem_channels=stem_channels,
            stages=stages,
            stem_stride=stem_stride,
            width=width,
        )
        super().__init__(generator=generator, encoder=encoder, shape=shape)
        self.layer = generator.layer(layer)
        channels, side, _ = generator.feature_shape(self.layer)
        sides = [max(shape) // stem_stride >> index for index in range(len(stages) + 1)]
        if side not in sides:
            raise ValueError(
                f"layer is {self.layer}, the trunk's outputs have sides {sides}: expected a layer "
                "of one of these sizes"
            )
        self.skip_index = sides.index(side)  # among the trunk's outputs
        skip_channels = encoder.pyramid.trunk.channels[self.skip_index]
        residual_width = channels if residual_width is None else residual_width
        if residual_width < 2:
            raise ValueError(f"residual_width is {residual_width}, expected 2 or more")
        self.residual = SOURCES[source](
            skip_channels=skip_channels, feature_channels=channels, width=residual_width
        )
        self.transform = TRANSFORMS[fusion](
            feature_channels=channels,
            residual_channels=residual_width if source == "e1" else skip_channels,
            width=residual_width,
        )
        self.encoder.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode of E1 and E2; e4e stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def encoder_modules(self) -> Mapping[str, nn.Module]:
        """Modules that training changes: E1 and E2. The frozen e4e is none; files hold it too."""
        return {"residual": self.residual, "transform": self.transform}

    def start_from(self, e4e: OnePassInversion) -> None:
        """Copies a trained e4e of the same settings, its mean code with it.

        Warns if it was trained around another generator, whose codes mean other pictures here.

        Raises:
            ValueError: if a layer has another shape than this encoder's.
        """
        try:
            self.encoder.load_state_dict(e4e.encoder.state_dict())
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"the e4e does not fit this encoder: {reason} ...") from error
        z = torch.linspace(-1, 1, self.generator.z_dim, device=self.device)[None]
        one, other = (part.map(z) for part in (self.generator, e4e.generator))
        if (one - other).norm() > SAME_CODES * one.norm():
            warnings.warn("the e4e was trained around another generator", stacklevel=2)
        self.latent_average.copy_(e4e.latent_average)

    def encode_with_skip(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]; the longer side is that of image_shape
    ) -> tuple[Tensor, Tensor]:
        """Computes codes of W+ [N, L, w_dim] and the skip feature [N, S, h, w] in one pass of e4e.

        Raises:
            ValueError: if images have another longer side.
        """
        outputs = self.encoder.trunk_outputs(images)
        return self.encoder.codes(outputs) + self.latent_average, outputs[self.skip_index]

    def begin(self, codes: Tensor, *, noise: NoiseMode = "const") -> Prefix:
        """Runs the generator up to the layer of the residual, for codes [N, L, w_dim]."""
        return self.generator.begin(codes, self.layer, noise=noise)

    def finish(
        self,
        prefix: Prefix,  # what `begin` returned
        codes: Tensor,  # [N, L, w_dim], those given to `begin`
        injection: Injection,  # what `transform` returned for prefix.feature
        *,
        noise: NoiseMode = "const",
    ) -> Tensor:
        """Runs the rest of the generator from the changed feature: pictures [N, 3, H, W]."""
        changed = Prefix(prefix.layer, injection.feature, prefix.rgb)
        return self.generator.finish(changed, codes, noise=noise)

    def invert(self, images: Tensor) -> Inversion:
        """Computes codes of W+, and the residual F_a as the feature for output "F"."""
        if self.output == "W+":
            return super().invert(images)
        codes, skip = self.encode_with_skip(images)
        derived = self._derived(codes)
        return Inversion(
            codes=codes,
            space=LatentSpace.W_PLUS,
            feature=self.residual(skip, derived["own"]),
            layer=self.layer,
            context=derived,
        )

    def completed(self, inversion: Inversion) -> Inversion:
        """Recomputes the generator's own feature and RGB of the codes."""
        if inversion.feature is None:
            return inversion
        return replace(inversion, context={**inversion.context, **self._derived(inversion.codes)})

    def edit(self, inversion: Inversion, move: Move) -> Inversion:
        """Moves the codes; `synthesize` transforms the residual, which stays the image's own."""
        return self.completed(super().edit(inversion, move))

    def synthesize(self, inversion: Inversion) -> Tensor:
        if inversion.feature is None:
            return super().synthesize(inversion)
        assert inversion.layer is not None
        own, rgb = inversion.context["own"], inversion.context["rgb"]
        injection = self.transform(own, inversion.feature)
        return self.finish(Prefix(inversion.layer, own, rgb), inversion.codes, injection)

    def reconstructions(self, images: Tensor) -> dict[str, Tensor]:
        """Reconstructs images in both outputs, which share e4e and the first layers."""
        codes, skip = self.encode_with_skip(images)
        prefix = self.begin(codes)
        injection = self.transform(prefix.feature, self.residual(skip, prefix.feature))
        pictures = {
            "W+": self.generator.finish(prefix, codes),
            "F": self.finish(prefix, codes, injection),
        }
        size = images.shape[-2:]
        return {name: at_input_size(picture, size) for name, picture in pictures.items()}

    def _derived(self, codes: Tensor) -> dict[str, Tensor]:
        prefix = self.begin(codes)
        assert prefix.rgb is not None, "a lower layer ends a block"
        return {"own": prefix.feature, "rgb": prefix.rgb}
