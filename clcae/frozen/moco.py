"""MoCo v2, the identity network for pictures without faces.

Chen et al. 2020, the ResNet-50 of 800 epochs on ImageNet; `MocoLoss` of e4e and CLCAE. As there,
pictures are resized by nearest neighbours and stay in [-1, 1]: the mean and deviation of ImageNet
that the network was trained with are not applied.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from clcae.frozen.face_embedders import unit_length
from clcae.serialization import register

SIZE = 224


@register("moco_resnet50")
class MoCo(nn.Module):
    """Embeds pictures of any subject; similar pictures have similar embeddings."""

    embedding_dim = 2048

    def __init__(self) -> None:
        from torchvision.models import resnet50  # slow to import

        super().__init__()
        self.resnet = resnet50(weights=None)
        self.resnet.fc = nn.Identity()

    def forward(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]; squeezed to a square
    ) -> Tensor:
        """Returns embeddings [N, 2048] of unit length."""
        return unit_length(self.resnet(F.interpolate(images, size=(SIZE, SIZE))))

    def embed_images(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]
    ) -> Tensor:
        """Returns embeddings [N, 2048] of unit length, as `FaceEmbedder.embed_images` does."""
        return self(images)
