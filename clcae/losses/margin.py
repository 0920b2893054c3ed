"""The additive angular margin of ArcFace, for embedders of identity.

Deng et al. 2019, equation 3. Deviation: beyond pi - margin the target logit continues linearly
(as the published code has it), so that it stays monotone.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AngularMargin(nn.Module):
    """Computes the cross-entropy over people, the angle to the own centre widened by the margin."""

    def __init__(
        self,
        *,
        embedding_dim: int,
        num_people: int,
        scale: float = 64.0,  # s, section 3.1
        margin: float = 0.5,  # m, radians
    ) -> None:
        super().__init__()
        self.scale, self.margin = scale, margin
        self.centres = nn.Parameter(torch.randn(num_people, embedding_dim) * 0.01)

    def forward(
        self,
        embeddings: Tensor,  # [N, D], unit length
        people: Tensor,  # [N], int64
    ) -> Tensor:
        """Computes the mean loss, []."""
        cosine = F.linear(embeddings, F.normalize(self.centres, dim=1))
        own = cosine.gather(1, people[:, None]).clamp(-1.0 + 1e-6, 1.0 - 1e-6)
        widened = torch.cos(torch.acos(own) + self.margin)
        limit = math.cos(math.pi - self.margin)
        linear = own - math.sin(math.pi - self.margin) * self.margin
        target = torch.where(own > limit, widened, linear)
        return F.cross_entropy(self.scale * cosine.scatter(1, people[:, None], target), people)
