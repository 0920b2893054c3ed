"""The judges of the portraits domain: identity, labelled attributes and perceptual distance.

An identity embedder trained with an additive angular margin (ArcFace, Deng et al. 2019), a
regressor of the labelled attributes, and a perceptual distance on the features of both, built as
LPIPS is (Zhang et al. 2018, equation 1) but without learnt weights: it is never called LPIPS.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clcae.construction import require_positive
from clcae.frozen.module import FrozenModule
from clcae.nn.batch_norm import BatchNorm1d, BatchNorm2d
from clcae.nn.trunk import Trunk
from clcae.serialization import register


@register("portraits_identity_embedder")
class IdentityEmbedder(nn.Module):
    """Embeds portraits; the cosine of two embeddings is the similarity of the people."""

    def __init__(
        self,
        *,
        size: int = 64,
        stem_channels: int = 24,
        stages: Sequence[Sequence[int]] = ((48, 1), (72, 2), (96, 2)),
        embedding_dim: int = 128,
    ) -> None:
        super().__init__()
        require_positive(size=size)
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
        """Returns embeddings [N, embedding_dim] of unit length."""
        return self.embed(self.trunk(images)[-1])

    def embed(self, feature: Tensor) -> Tensor:
        """Computes embeddings from the trunk's last feature."""
        embedding = self.embedding_norm(self.linear(self.norm(feature).flatten(1)))
        return F.normalize(embedding, dim=1)


@register("portraits_attribute_regressor")
class AttributeRegressor(nn.Module):
    """Predicts the labelled attributes, in the order and units of clcae.portraits.ATTRIBUTES."""

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
        require_positive(size=size)
        if not {*binary} <= {*range(num_attributes)}:
            raise ValueError(f"binary is {binary}, expected columns below {num_attributes}")
        self.size, self.binary = size, list(binary)
        self.trunk = Trunk(stem_channels=stem_channels, stages=stages, stem_stride=2)
        channels, side = self.trunk.channels[-1], size >> (len(stages) + 1)
        self.norm = BatchNorm2d(channels)
        self.hidden = nn.Linear(channels * side**2, 96)
        self.out = nn.Linear(96, num_attributes)

    def raw(self, feature: Tensor) -> Tensor:
        """Computes scores [N, A] from the trunk's last feature; binary columns are logits."""
        return self.out(F.relu(self.hidden(self.norm(feature).flatten(1))))

    def forward(
        self,
        images: Tensor,  # [N, 3, size, size], in [-1, 1]
    ) -> Tensor:
        """Returns attributes [N, A]; binary columns are probabilities."""
        scores = self.raw(self.trunk(images)[-1])
        columns = list(scores.unbind(1))
        for column in self.binary:
            columns[column] = columns[column].sigmoid()
        return torch.stack(columns, dim=1)


@register("portraits_judges")
class PortraitJudges(FrozenModule):
    """Combines the identity embedder and the attribute regressor as `Judges`."""

    identity_name = "portraits identity embedder"
    distance_name = "features of the portraits judges"

    def __init__(self, *, identity: IdentityEmbedder, attributes: AttributeRegressor) -> None:
        super().__init__()
        self.identity = identity
        self.attributes = attributes
        self.eval().requires_grad_(False)

    @property
    def identity_trunk(self) -> Trunk:
        """Trunk of the identity embedder."""
        return self.identity.trunk

    def features(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]
    ) -> list[Tensor]:
        """Computes features [N, C_i, H_i, W_i] of both trunks, finest first, identity's before."""
        return [*self.identity.trunk(images), *self.attributes.trunk(images)]

    def embed(self, features: Sequence[Tensor]) -> Tensor:
        """Computes identity embeddings [N, D] from `features`."""
        return self.identity.embed(features[len(self.identity.trunk.channels) - 1])

    def distance(self, features: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
        """Computes perceptual distances [N], in [0, 4], between two batches of `features`.

        The mean over features and positions of the squared difference, features having unit length
        over the channels.
        """
        distances = []
        for feature, other in zip(features, others, strict=True):
            difference = F.normalize(feature, dim=1) - F.normalize(other, dim=1)
            distances.append(difference.square().sum(dim=1).mean(dim=(1, 2)))
        return torch.stack(distances).mean(dim=0)

    @property
    def pooled_dim(self) -> int:
        """Length of `pooled`."""
        return self.identity.trunk.channels[-1]

    def pooled(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]
    ) -> Tensor:
        """Averages the identity trunk's last feature, for the Frechet distance: [N, D]."""
        return self.identity.trunk(images)[-1].mean(dim=(2, 3))
