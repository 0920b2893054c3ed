"""The judges of the portraits domain: who it is, how it looks, and how different two pictures are.

An identity embedder trained with an additive angular margin (ArcFace, Deng et al. 2019), a
regressor of the labelled attributes, and a perceptual distance on the features of both, built as
LPIPS is (Zhang et al. 2018, equation 1) but without learnt weights: it is never called LPIPS.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clcae.nn.batch_norm import BatchNorm1d, BatchNorm2d
from clcae.nn.trunk import Trunk
from clcae.serialization import register


@register("portraits_identity_embedder")
class IdentityEmbedder(nn.Module):
    """Images -> unit embeddings; the cosine of two says whether they show the same person."""

    def __init__(
        self,
        *,
        size: int = 64,
        stem_channels: int = 24,
        stages: Sequence[Sequence[int]] = ((48, 1), (72, 2), (96, 2)),
        embedding_dim: int = 128,
    ) -> None:
        super().__init__()
        self.size, self.embedding_dim = size, embedding_dim
        self.trunk = Trunk(stem_channels=stem_channels, stages=stages, stem_stride=2)
        side = size >> (len(stages) + 1)
        self.norm = BatchNorm2d(self.trunk.channels[-1])
        self.linear = nn.Linear(self.trunk.channels[-1] * side**2, embedding_dim, bias=False)
        self.embedding_norm = BatchNorm1d(embedding_dim)

    def forward(
        self,
        images: Tensor,  # [N, 3, size, size], in [-1, 1]
    ) -> Tensor:
        """Embeddings [N, embedding_dim] of unit length."""
        return self.embed(self.trunk(images)[-1])

    def embed(self, feature: Tensor) -> Tensor:
        """Embeddings from the trunk's last feature."""
        embedding = self.embedding_norm(self.linear(self.norm(feature).flatten(1)))
        return F.normalize(embedding, dim=1)


@register("portraits_attribute_regressor")
class AttributeRegressor(nn.Module):
    """Images -> the labelled attributes, in the units of clcae.portraits.ATTRIBUTES."""

    def __init__(
        self,
        *,
        size: int = 64,
        stem_channels: int = 24,
        stages: Sequence[Sequence[int]] = ((40, 1), (64, 2), (96, 1)),
        num_attributes: int = 8,
        binary: Sequence[int] = (4,),  # columns that are logits: glasses
    ) -> None:
        super().__init__()
        self.size, self.binary = size, list(binary)
        self.trunk = Trunk(stem_channels=stem_channels, stages=stages, stem_stride=2)
        channels, side = self.trunk.channels[-1], size >> (len(stages) + 1)
        self.norm = BatchNorm2d(channels)
        self.hidden = nn.Linear(channels * side**2, 96)
        self.out = nn.Linear(96, num_attributes)

    def raw(self, feature: Tensor) -> Tensor:
        """Scores [N, A] from the trunk's last feature; binary columns as logits."""
        return self.out(F.relu(self.hidden(self.norm(feature).flatten(1))))

    def forward(
        self,
        images: Tensor,  # [N, 3, size, size], in [-1, 1]
    ) -> Tensor:
        """Attributes [N, A]; binary columns as probabilities."""
        scores = self.raw(self.trunk(images)[-1])
        columns = list(scores.unbind(1))
        for column in self.binary:
            columns[column] = columns[column].sigmoid()
        return torch.stack(columns, dim=1)


class PortraitJudges(nn.Module):
    """Both judges behind the three questions that losses and metrics ask."""

    identity_name = "portraits identity embedder"
    distance_name = "features of the portraits judges"

    def __init__(self, *, identity: IdentityEmbedder, attributes: AttributeRegressor) -> None:
        super().__init__()
        self.identity = identity
        self.attributes = attributes
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "PortraitJudges":
        """Judges never train: they stay in evaluation mode."""
        return super().train(False)

    def features(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]
    ) -> list[Tensor]:
        """The features of both trunks [N, C_i, H_i, W_i], finest first, identity's before."""
        return [*self.identity.trunk(images), *self.attributes.trunk(images)]

    def embed(self, features: Sequence[Tensor]) -> Tensor:
        """Identity embeddings [N, D] from `features`."""
        return self.identity.embed(features[len(self.identity.trunk.channels) - 1])

    def distance(self, features: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
        """Perceptual distance [N] between two batches of `features`, in [0, 4].

        At every tap: features of unit length over the channels, squared difference, mean over the
        positions; then the mean over the taps.
        """
        distances = []
        for feature, other in zip(features, others, strict=True):
            difference = F.normalize(feature, dim=1) - F.normalize(other, dim=1)
            distances.append(difference.square().sum(dim=1).mean(dim=(1, 2)))
        return torch.stack(distances).mean(dim=0)

    def embed_images(self, images: Tensor) -> Tensor:
        """Identity embeddings [N, D] of images."""
        return self.identity(images)

    def distance_of_images(self, images: Tensor, others: Tensor) -> Tensor:
        """Perceptual distance [N] of image pairs."""
        return self.distance(self.features(images), self.features(others))

    @property
    def pooled_dim(self) -> int:
        """Length of `pooled`."""
        return self.identity.trunk.channels[-1]

    def pooled(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]
    ) -> Tensor:
        """Features [N, D] for the Frechet distance: means of the identity trunk's last stage."""
        return self.identity.trunk(images)[-1].mean(dim=(2, 3))
