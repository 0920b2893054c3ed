"""The base-code encoder of F/Z+ and BDInvert: where the search of a feature begins, and its anchor.

F/Z+ (arXiv 2307.08995, WACV 2024), section 3; `encoder_simple` of the official code, which BDInvert
(Kang et al. 2021) trained. A picture of 128 pixels becomes the feature 512 x 16 x 16 at the
generator's layer 16x16/0, whatever the generator's resolution. Deviation: the official code scales
pictures to 128 by Pillow's Lanczos filter, here by an antialiased bicubic one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clcae.construction import require_positive
from clcae.data.transforms import resize
from clcae.nn.batch_norm import BatchNorm2d
from clcae.serialization import register

CONVOLUTIONS = 3  # of a stage
SLOPE = 0.2


@register("base_code_encoder")
class BaseCodeEncoder(nn.Module):
    """Stages of three convolutions, each at half the resolution of the one before.

    Args:
        image_size: side of the pictures that the first convolution reads.
        widths: channels of the stages.
        out_channels: of the feature; None is the width of the last stage.
    """

    def __init__(
        self,
        *,
        image_size: int = 128,
        widths: Sequence[int] = (128, 256, 512),
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        require_positive(image_size=image_size)
        if not widths or image_size % (1 << len(widths)):
            raise ValueError(
                f"image_size is {image_size} with {len(widths)} stages: expected one stage or "
                "more, and a size that each halves"
            )
        self.image_size = image_size
        side = image_size >> len(widths)
        channels = widths[-1] if out_channels is None else out_channels
        self.out_shape = (channels, side, side)
        layers: list[nn.Module] = []
        before = 3
        for width in widths:
            for _ in range(CONVOLUTIONS):
                layers += _block(before, width)
                before = width
            layers.append(nn.AvgPool2d(2))
        layers += [*_block(before, before), nn.Conv2d(before, channels, 3, padding=1)]
        self.layers = nn.Sequential(*layers)
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, SLOPE, "fan_out", "leaky_relu")

    def forward(
        self,
        images: Tensor,  # [N, 3, H, H], in [-1, 1]
    ) -> Tensor:
        """Computes base codes [N, *out_shape]."""
        images = resize(images, (self.image_size, self.image_size))
        x = images.contiguous(memory_format=torch.channels_last)
        feature: Tensor = self.layers(x)
        return feature


def _block(in_channels: int, out_channels: int) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        BatchNorm2d(out_channels),
        nn.LeakyReLU(SLOPE),
    ]
