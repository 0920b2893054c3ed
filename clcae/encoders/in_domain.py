"""The domain-guided encoder of in-domain inversion: a code with a row for every layer of a picture.

Zhu et al. 2020, "In-Domain GAN Inversion for Real Image Editing" (arXiv 2004.00049, ECCV 2020),
section 3.1; `StyleGANEncoderNet` of genforce/idinvert_pytorch with batch norm and without weight
scaling, as the released encoders have it. The code itself is normalised over the batch: every
number of it has the deviation that `spread` holds, about a mean that is learnt.

Known deviations: the width of a row, the number of rows and all channels are arguments. The weight
of the last layer holds the factor 1 / sqrt(inputs) that the official code applies at run time. The
authors trained with TensorFlow, whose network is another one (5x5 first, at most 512 channels, the
activation before the normalisation); its initial weights, N(0, 0.02), are taken over.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from clcae.nn.batch_norm import BatchNorm1d, BatchNorm2d

LAST_SIDE = 4  # pixels of the feature that the last layer reads
INITIAL_DEVIATION = 0.02  # training/networks_encoder.py of the official TensorFlow code


class DomainGuidedEncoder(nn.Module):
    """Residual blocks, each behind an average pooling, then one linear layer for all rows.

    Raises:
        ValueError: if image_size is no power of two from 8 up, or max_width is below width.
    """

    def __init__(
        self,
        *,
        num_rows: int,
        dim: int = 512,  # numbers of a row
        image_size: int = 256,
        width: int = 64,  # channels at the size of the images; doubled by every block
        max_width: int = 1024,
    ) -> None:
        super().__init__()
        if image_size < 2 * LAST_SIDE or image_size & (image_size - 1):
            raise ValueError(f"image_size is {image_size}, expected a power of two, 8 or more")
        if not 0 < width <= max_width:
            raise ValueError(f"width is {width}, expected 1 to max_width, {max_width}")
        self.num_rows, self.dim, self.image_size = num_rows, dim, image_size
        count = (image_size // LAST_SIDE).bit_length() - 1
        widths = [min(width << index, max_width) for index in range(count + 1)]
        self.first = _convolution(3, width, side=3, bias=False)
        self.blocks = nn.ModuleList(
            ResidualBlock(in_channels=fine, out_channels=coarse)
            for fine, coarse in pairwise(widths)
        )
        self.last = nn.Sequential(
            nn.Linear(widths[-1] * LAST_SIDE**2, num_rows * dim, bias=False),
            _with_constant_scale(BatchNorm1d(num_rows * dim)),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, std=INITIAL_DEVIATION)

    def forward(
        self,
        images: Tensor,  # [N, 3, image_size, image_size], in [-1, 1]
    ) -> Tensor:
        """Computes rows [N, num_rows, dim].

        Raises:
            ValueError: if images have another shape.
        """
        side = self.image_size
        if images.ndim != 4 or images.shape[1:] != (3, side, side):
            raise ValueError(
                f"images have shape {tuple(images.shape)}, "
                f"this encoder reads [N, 3, {side}, {side}]"
            )
        x = self.first(images)
        for block in self.blocks:
            x = block(nn.functional.avg_pool2d(x, 2))
        rows: Tensor = self.last(x.flatten(1))
        return rows.unflatten(1, (self.num_rows, self.dim))

    @torch.no_grad()
    def set_statistics(
        self,
        mean: Tensor,  # [dim]
        deviation: Tensor,  # [dim], positive
    ) -> None:
        """Sets the mean with which training begins, and the constant deviation, of every row."""
        norm = self.last[1]
        assert isinstance(norm, BatchNorm1d)
        norm.bias.copy_(mean.repeat(self.num_rows))
        norm.weight.copy_(deviation.repeat(self.num_rows))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a 1x1 one, which is left out where the width stays."""

    def __init__(self, *, in_channels: int, out_channels: int) -> None:
        super().__init__()
        hidden = min(in_channels, out_channels)
        self.conv0 = _convolution(in_channels, hidden, side=3)
        self.conv1 = _convolution(hidden, out_channels, side=3)
        self.shortcut = (
            _convolution(in_channels, out_channels, side=1, bias=False)
            if in_channels != out_channels
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps [N, in_channels, H, W] to [N, out_channels, H, W]."""
        kept = x if self.shortcut is None else self.shortcut(x)
        changed: Tensor = self.conv1(self.conv0(x))
        return changed + kept


def _convolution(in_channels: int, channels: int, *, side: int, bias: bool = True) -> nn.Sequential:
    """Builds a convolution that keeps the size, its batch norm and leaky ReLU (0.2)."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, side, padding=side // 2, bias=bias),
        _with_constant_scale(BatchNorm2d(channels)),
        nn.LeakyReLU(0.2),
    )


def _with_constant_scale(norm: nn.Module) -> nn.Module:
    """Makes the scale of a batch norm a buffer: files hold it, training leaves it as it is."""
    del norm.weight
    norm.register_buffer("weight", torch.ones(norm.get_parameter("bias").shape))
    return norm
