"""Base of the CLCAE methods: a foundation code w, then W+ and a feature F, from one encoder.

CLCAE (arXiv 2211.11448), sections 3.2 and 3.4; `AFPSP` of the official code. A subclass builds the
pyramid, the foundation head, the rows of W+ and the feature encoder, and says what the last reads.
"""

import copy
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clcae.aligner import ImageTower
from clcae.data.transforms import at_input_size
from clcae.encoders.pyramid import Pyramid
from clcae.methods.interface import Inversion, InversionMethod, Move
from clcae.nn.style_head import StyleHead
from clcae.stylegan2 import Generator, LatentSpace, broadcast_rows
from clcae.stylegan2.synthesis import NoiseMode, Prefix

Rule = Literal["refined", "foundation"]


@dataclass(frozen=True)
class Encoding:
    """Outputs of the encoder before F: foundation code, W+ codes and a pyramid feature."""

    w: Tensor  # [N, w_dim], the foundation code
    w_plus: Tensor  # [N, L, w_dim]
    level: Tensor  # [N, C, h, w], the pyramid level F is made from


class FoundationInversion(InversionMethod):
    """An encoder of w, W+ and F around a frozen generator."""

    outputs = ("W", "W+", "F")
    output = "F"
    derived = ("own", "rgb")  # the generator's feature and RGB at the layer of F
    average_image: Tensor

    def __init__(
        self,
        *,
        generator: Generator,
        image_shape: tuple[int, int],  # (H, W)
        layer: str,  # of the generator, that of F
        pyramid: Pyramid,  # images -> feature maps, coarsest first
        foundation: StyleHead,  # coarsest feature map -> w minus its average
        rows: nn.Module,  # (w minus its average, feature maps) -> what is added to w
        feature: nn.Module,  # called by `feature_of`
        feature_level: int,  # of the pyramid, that F is made from
        subtract_average: bool,  # give the pyramid images minus the average image
        edit_rule: Rule,  # see `edit`
    ) -> None:
        super().__init__()
        self.generator = generator
        self.layer = generator.layer(layer)
        self.subtract_average = subtract_average
        self.edit_rule: Rule = _checked(edit_rule)
        self.feature_level = feature_level
        self.register_buffer("average_image", torch.zeros(3, *image_shape))
        self.pyramid = pyramid
        self.foundation = foundation
        self.rows = rows
        self.feature = feature

    @property
    def image_shape(self) -> tuple[int, int]:
        _, height, width = self.average_image.shape
        return height, width

    def with_rule(self, edit_rule: Rule) -> Self:
        """Returns a copy that shares all weights and edits by another rule."""
        other = copy.copy(self)  # modules and parameters are shared
        other.edit_rule = _checked(edit_rule)
        return other

    @abstractmethod
    def feature_of(self, encoding: Encoding, own: Tensor) -> Tensor:
        """Computes f from the generator's own feature of the W+ code, both [N, C, R, R]."""

    def start_from(self, tower: ImageTower) -> None:
        """Copies an aligner's image tower into the trunk and the foundation head.

        The official stage 2 means to load both (and two 1x1 convolutions that its stage 1 never
        trains), but gives its loader, which is not strict, the file's outer dictionary: nothing is
        loaded.

        Raises:
            ValueError: if a layer of the tower has another shape than this encoder's.
        """
        for target, source in ((self.pyramid.trunk, tower.trunk), (self.foundation, tower.head)):
            try:
                target.load_state_dict(source.state_dict())
            except RuntimeError as error:
                reason = " ".join(str(error).split())[:300]
                raise ValueError(f"the aligner does not fit this encoder: {reason}") from error

    @torch.no_grad()
    def update_average_image(self) -> None:
        """Sets `average_image` to the generator's picture of its mean code."""
        picture = self.generator.synthesize(self.generator.w_average[None])
        self.average_image.copy_(self.at_input_size(picture)[0])

    def encode(
        self,
        images: Tensor,  # [N, 3, H, W] of the size this encoder reads, in [-1, 1]
        *,
        foundation: Tensor | None = None,  # [N, w_dim]
    ) -> Encoding:
        """Computes w and W+; refines `foundation` in place of the head's own w if given.

        Raises:
            ValueError: if images have another size.
        """
        if images.ndim != 4 or images.shape[1:] != self.average_image.shape:
            height, width = self.image_shape
            raise ValueError(
                f"images have shape {tuple(images.shape)}, this encoder reads "
                f"[N, 3, {height}, {width}]"
            )
        if self.subtract_average:
            images = images - self.average_image
        levels = self.pyramid(images)
        average = self.generator.w_average
        w = average + self.foundation(levels[0]) if foundation is None else foundation
        offset = w - average
        w_plus = w[:, None] + self.rows(offset, levels)
        return Encoding(w=w, w_plus=w_plus, level=levels[self.feature_level])

    def pictures(
        self,
        encoding: Encoding,
        *,
        noise: NoiseMode = "const",
        feature_scale: float = 1.0,
        checkpoint_activations: bool = False,
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """Synthesizes G(w), G(w+) and G(w+, f) at the input's size.

        G(w+) and G(w+, f) share everything up to the layer of f, which is computed once.

        Args:
            encoding: what `encode` returned.
            noise: of the generator.
            feature_scale: s in (1 - s) own + s f, the feature that the generator goes on with.
            checkpoint_activations: recompute the activations of the three syntheses in the backward
                pass, one after the other; gradients are the same.

        Returns:
            Pictures [N, 3, H, W] named "W", "W+" and "F"; f before it is scaled, and the
            generator's own feature, [N, C, R, R] each.
        """
        generator = self.generator
        prefix = generator.begin(encoding.w_plus, self.layer, noise=noise)
        feature = self.feature_of(encoding, prefix.feature)
        own = prefix.feature
        scaled = feature if feature_scale == 1.0 else torch.lerp(own, feature, feature_scale)
        blended = Prefix(prefix.layer, scaled, prefix.rgb)
        run = partial(checkpoint, use_reentrant=False) if checkpoint_activations else _call
        pictures: dict[str, Tensor] = {
            "W": run(generator.synthesize, encoding.w, noise=noise),
            "W+": run(generator.finish, prefix, encoding.w_plus, noise=noise),
            "F": run(generator.finish, blended, encoding.w_plus, noise=noise),
        }
        pictures = {name: self.at_input_size(picture) for name, picture in pictures.items()}
        return pictures, feature, own

    def reconstructions(self, images: Tensor) -> dict[str, Tensor]:
        """Reconstructs images in all three outputs, with one pass of the encoder."""
        return self.pictures(self.encode(images))[0]

    def invert(self, images: Tensor) -> Inversion:
        """Computes codes of W or W+, and f for output "F"."""
        encoding = self.encode(images)
        context = {"w": encoding.w, "images": images}
        if self.output == "W":
            codes = broadcast_rows(encoding.w, self.generator.num_codes)
            return Inversion(codes=codes, space=LatentSpace.W, context=context)
        refined = Inversion(codes=encoding.w_plus, space=LatentSpace.W_PLUS, context=context)
        if self.output == "W+":
            return refined
        derived = self._derived(encoding.w_plus)
        feature = self.feature_of(encoding, derived["own"])
        return replace(refined, feature=feature, layer=self.layer, context=context | derived)

    def completed(self, inversion: Inversion) -> Inversion:
        """Recomputes the generator's own feature and RGB of the codes."""
        if inversion.feature is None:
            return inversion
        return replace(inversion, context={**inversion.context, **self._derived(inversion.codes)})

    def edit(self, inversion: Inversion, move: Move) -> Inversion:
        """Moves the codes and f by one of two rules, which are the same for output "W".

        "refined" (the paper, section 3.4): W+ is moved, and f becomes f + G(w+ edited) - G(w+),
        features at the layer of f. "foundation" (the official InterFaceGAN script): w is moved
        before it is refined, and f is the encoder's own for the moved w, plus the same difference.
        Codes that come without the image, and so without its w, are moved as they are.
        """
        simple = self.edit_rule == "refined" or self.output == "W" or "w" not in inversion.context
        if simple or inversion.space is LatentSpace.W:
            moved = super().edit(inversion, move)
            if inversion.feature is None:
                return moved
            derived = self._derived(moved.codes)
            # In this order, so that no edit is no change, bit for bit.
            feature = inversion.feature + (derived["own"] - inversion.context["own"])
            context = {**inversion.context, **derived}
            return replace(moved, feature=feature, context=context)
        w = move(inversion.context["w"][:, None])[:, 0]
        encoding = self.encode(inversion.context["images"], foundation=w)
        codes, context = encoding.w_plus, {**inversion.context, "w": w}
        if inversion.feature is None:
            return replace(inversion, codes=codes, context=context)
        # Of the image itself, however often its inversion is edited.
        first = context.setdefault("first_own", context["own"])
        derived = self._derived(codes)
        feature = self.feature_of(encoding, first) + (derived["own"] - first)
        return replace(inversion, codes=codes, feature=feature, context={**context, **derived})

    def synthesize(self, inversion: Inversion) -> Tensor:
        if inversion.feature is None:
            return super().synthesize(inversion)
        assert inversion.layer is not None
        # What lies before f has been computed for f: one synthesis in all.
        prefix = Prefix(inversion.layer, inversion.feature, inversion.context["rgb"])
        return self.generator.finish(prefix, inversion.codes)

    def _derived(self, codes: Tensor) -> dict[str, Tensor]:
        """Computes the generator's own feature [N, C, R, R] at the layer of f, and its RGB."""
        prefix = self.generator.begin(codes, self.layer)
        assert prefix.rgb is not None, "the first layer ends a block"
        return {"own": prefix.feature, "rgb": prefix.rgb}

    def at_input_size(self, pictures: Tensor) -> Tensor:
        """Averages and crops pictures to the shape of the images."""
        return at_input_size(pictures, self.image_shape)


def _checked(edit_rule: Rule) -> Rule:
    if edit_rule not in get_args(Rule):
        raise ValueError(f"edit_rule is {edit_rule!r}, expected 'refined' or 'foundation'")
    return edit_rule


def _call(function: Callable[..., Tensor], *arguments: object, noise: NoiseMode) -> Tensor:
    return function(*arguments, noise=noise)
