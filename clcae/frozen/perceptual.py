"""LPIPS, version 0.1, split in two: features of a picture, and distances between features.

Zhang et al. 2018, equation 1: features of an ImageNet classifier at five depths, of unit length
over the channels, squared differences weighted by learnt factors. `LPIPS` of the package lpips,
with which values agree; that one computes both pictures' features at every comparison. Deviation:
the gradient is 0, not NaN, where all channels of a feature are 0.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clcae.frozen.module import FrozenModule
from clcae.serialization import register

Classifier = Literal["alex", "vgg"]

_TAPS = {"alex": (2, 5, 8, 10, 12), "vgg": (4, 9, 16, 23, 30)}  # layers up to each, with its ReLU
_CHANNELS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}
SMALLEST = 32  # pixels; below, the last feature has no position


@register("lpips")
class LPIPS(FrozenModule):
    """Computes perceptual distances; `clcae.pretrained.frozen` loads the weights."""

    shift: Tensor
    scale: Tensor

    def __init__(self, *, classifier: Classifier = "alex") -> None:
        from torchvision.models import alexnet, vgg16  # slow to import

        super().__init__()
        if classifier not in _TAPS:
            raise ValueError(f"classifier is {classifier!r}, expected 'alex' or 'vgg'")
        self.classifier = classifier
        build = alexnet if classifier == "alex" else vgg16
        self.trunk = build(weights=None).features[: _TAPS[classifier][-1]]
        self.factors = nn.ParameterList(
            nn.Parameter(torch.ones(1, channels, 1, 1)) for channels in _CHANNELS[classifier]
        )
        # ImageNet's mean and deviation, for pictures in [-1, 1]
        shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
        scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        self.eval().requires_grad_(False)

    @property
    def name(self) -> str:
        """Name and version, for protocols."""
        return f"LPIPS v0.1 ({self.classifier})"

    def features(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]; the papers compare at 256
    ) -> list[Tensor]:
        """Computes five unit-length features [N, C, h, w]. Raises ValueError below 32 pixels."""
        if min(images.shape[-2:]) < SMALLEST:
            raise ValueError(
                f"images are {tuple(images.shape[-2:])}: LPIPS needs {SMALLEST} pixels or more"
            )
        x, features = (images - self.shift) / self.scale, []
        for index, layer in enumerate(self.trunk):
            x = layer(x)
            if index + 1 in _TAPS[self.classifier]:
                wide = x.to(torch.promote_types(x.dtype, torch.float32))
                features.append(F.normalize(wide, dim=1, eps=1e-10))
        return features

    def distance(self, features: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
        """Computes distances [N], 0 or more, between two batches of `features`."""
        distances = [
            ((feature - other).square() * factor).sum(dim=1).mean(dim=(1, 2))
            for feature, other, factor in zip(features, others, self.factors, strict=True)
        ]
        return torch.stack(distances).sum(dim=0)

    def forward(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]
        others: Tensor,  # of the same shape
    ) -> Tensor:
        """Computes distances [N] of image pairs."""
        return self.distance(self.features(images), self.features(others))
