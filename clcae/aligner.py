"""The contrastive aligner: embeds images and codes of W so that partners lie together.

CLCAE section 3.1 (stage 1); `ImageEncoder` and `LatentEncoder` of the official code. The towers
read residuals in the official code (image minus average image, w minus w_avg); here the image tower
does so if `subtract_average` is set. Deviations: the self-attention over one token is the linear
map that it is (its position embedding has no effect), there is no dropout, the 1x1 convolutions
that the official image tower computes and discards do not exist, and the temperature is clamped as
CLIP's is (scale at most 100).
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clcae.data.transforms import height_and_width
from clcae.nn.attention import OneTokenAttention
from clcae.nn.batch_norm import BatchNorm1d
from clcae.nn.style_head import StyleHead
from clcae.nn.trunk import IR_SE50, Trunk
from clcae.serialization import register

MAX_SCALE = 100.0  # Radford et al. 2021, section 2.5


class ProjectionHead(nn.Module):
    """Linear, batch norm, ReLU, linear."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.linear0 = nn.Linear(dim, dim, bias=False)
        self.norm = BatchNorm1d(dim)
        self.linear1 = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # [N, dim] -> [N, dim]
        return self.linear1(F.relu(self.norm(self.linear0(x))))


class ImageTower(nn.Module):
    """IR-SE trunk, map2style head, projection."""

    def __init__(
        self,
        *,
        image_size: int,  # the longer side
        stem_channels: int,
        stages: Sequence[Sequence[int]],
        stem_stride: int,
        dim: int,
    ) -> None:
        super().__init__()
        self.trunk = Trunk(stem_channels=stem_channels, stages=stages, stem_stride=stem_stride)
        self.head = StyleHead(
            in_channels=self.trunk.channels[-1],
            out_dim=dim,
            side=image_size // (stem_stride << len(stages)),
        )
        self.projection = ProjectionHead(dim=dim)

    def forward(self, images: Tensor) -> Tensor:  # [N, 3, H, W] -> [N, dim]
        return self.projection(self.head(self.trunk(images)[-1]))


class TokenLayer(nn.Module):
    """A post-norm transformer encoder layer over one token."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.attention = OneTokenAttention(token_dim=dim, out_dim=dim)
        self.norm1 = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(
            nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim)
        )
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:  # [N, dim] -> [N, dim]
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.feed_forward(x))


class LatentTower(nn.Module):
    """Three layers named coarse, medium and fine in the official code, then the projection."""

    def __init__(self, *, w_dim: int, dim: int, num_layers: int = 3) -> None:
        super().__init__()
        self.entry = nn.Identity() if w_dim == dim else nn.Linear(w_dim, dim)
        self.layers = nn.Sequential(*(TokenLayer(dim=dim) for _ in range(num_layers)))
        self.projection = ProjectionHead(dim=dim)

    def forward(self, offset: Tensor) -> Tensor:  # [N, w_dim] -> [N, dim]
        return self.projection(self.layers(self.entry(offset)))


@register("clcae_aligner")
class Aligner(nn.Module):
    """Embeds images and codes with a tower each; holds the temperature between them."""

    average_image: Tensor
    w_average: Tensor

    def __init__(
        self,
        *,
        image_size: int | Sequence[int],  # a side, or (H, W)
        w_dim: int,
        dim: int = 512,
        stem_channels: int = 64,
        stages: Sequence[Sequence[int]] = IR_SE50,
        stem_stride: int = 1,
        subtract_average: bool = True,
        unit_length: bool = True,  # of embeddings; the official flag use_norm, given in its recipes
        temperature: float = 0.07,  # at the start; section 3.1
    ) -> None:
        super().__init__()
        height, width = height_and_width(image_size)
        self.subtract_average = subtract_average
        self.unit_length = unit_length
        self.image_tower = ImageTower(
            image_size=max(height, width),
            stem_channels=stem_channels,
            stages=stages,
            stem_stride=stem_stride,
            dim=dim,
        )
        self.latent_tower = LatentTower(w_dim=w_dim, dim=dim)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1.0 / temperature)))
        self.register_buffer("average_image", torch.zeros(3, height, width))
        self.register_buffer("w_average", torch.zeros(w_dim))

    @property
    def scale(self) -> Tensor:
        """1 / temperature, [], at most 100."""
        return self.log_scale.exp().clamp(max=MAX_SCALE)

    def set_averages(
        self,
        *,
        image: Tensor,  # [3, H, W], the picture of the mean code
        w: Tensor,  # [w_dim]
    ) -> None:
        """Sets the averages that the towers subtract."""
        self.average_image.copy_(image)
        self.w_average.copy_(w)

    def embed_images(
        self,
        images: Tensor,  # [N, 3, H, W] of the size of `image_size`, in [-1, 1]
    ) -> Tensor:
        """Embeds images as [N, dim], of unit length if `unit_length` is set.

        Raises:
            ValueError: if images have another size than the average image to subtract.
        """
        if self.subtract_average:
            if images.shape[1:] != self.average_image.shape:
                _, height, width = self.average_image.shape
                raise ValueError(
                    f"images have shape {tuple(images.shape)}, this aligner reads "
                    f"[N, 3, {height}, {width}]"
                )
            images = images - self.average_image
        return self._finished(self.image_tower(images))

    def embed_latents(
        self,
        w: Tensor,  # [N, w_dim]
    ) -> Tensor:
        """Embeds codes as [N, dim], of unit length if `unit_length` is set."""
        return self._finished(self.latent_tower(w - self.w_average))

    def _finished(self, embedding: Tensor) -> Tensor:
        return F.normalize(embedding, dim=1) if self.unit_length else embedding
