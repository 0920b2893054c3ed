"""Face recognition networks of the papers: IR-SE50 (ArcFace) and IR-101 (CurricularFace).

Deng et al. 2019 (ArcFace) for the training loss of pSp, e4e and CLCAE, `Backbone(112, 50, 'ir_se')`
of `model_ir_se50.pth`; Huang et al. 2020 (CurricularFace) for evaluation, `IR_101` of
`CurricularFace_Backbone.pth`. Deviations: no dropout, which is off in evaluation, and the training
crop also takes pictures of other widths than 256.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clcae.construction import require_positive
from clcae.nn.batch_norm import BatchNorm1d, BatchNorm2d
from clcae.nn.trunk import IR_SE50, Trunk
from clcae.serialization import register

CROP_WIDTH = 256  # width of the picture in which the crop's rows and columns are counted
CROP_ROWS, CROP_COLUMNS = slice(35, 223), slice(32, 220)  # official `IDLoss`
IR_101 = ((64, 3), (128, 13), (256, 30), (512, 3))


def to_width(
    images: Tensor,  # [N, C, H, W]
    width: int,
) -> Tensor:
    """Scales images to a width, keeping proportions: averages to shrink, bilinear to enlarge."""
    if images.shape[-1] == width:
        return images
    size = (max(round(images.shape[-2] * width / images.shape[-1]), 1), width)
    if images.shape[-1] > width:
        return F.adaptive_avg_pool2d(images, size)
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


def training_crop(
    images: Tensor,  # [N, 3, H, W], in [-1, 1]: an aligned FFHQ picture, of any size
    size: int = 112,
) -> Tensor:
    """Crops the face as the official identity losses do: [N, 3, size, size].

    Takes rows 35 to 223 and columns 32 to 220 of the picture at a width of 256, averaged down;
    lower pictures (cars, 192 x 256) give fewer rows.

    Raises:
        ValueError: if the picture is so low that no row is left.
    """
    scaled = to_width(images, CROP_WIDTH)
    if scaled.shape[-2] <= CROP_ROWS.start:
        raise ValueError(
            f"images are {tuple(images.shape[-2:])}: the face crop begins at row {CROP_ROWS.start} "
            f"of a picture {CROP_WIDTH} wide, which has {scaled.shape[-2]} rows"
        )
    return F.adaptive_avg_pool2d(scaled[:, :, CROP_ROWS, CROP_COLUMNS], size)


def unit_length(
    embedding: Tensor,  # [N, D]
) -> Tensor:
    """Normalises embeddings in float32 at least: bfloat16 cannot tell cosines near 1 apart."""
    return F.normalize(embedding.to(torch.promote_types(embedding.dtype, torch.float32)), dim=1)


@register("face_embedder")
class FaceEmbedder(nn.Module):
    """Embeds aligned faces; the cosine of two embeddings is the similarity of the people."""

    def __init__(
        self,
        *,
        size: int = 112,
        stem_channels: int = 64,
        stages: Sequence[Sequence[int]] = IR_SE50,
        excitation: bool = True,
        embedding_dim: int = 512,
        embedding_affine: bool = True,  # scale and shift after the last normalisation
    ) -> None:
        super().__init__()
        require_positive(size=size)
        self.size, self.embedding_dim = size, embedding_dim
        self.trunk = Trunk(stem_channels=stem_channels, stages=stages, excitation=excitation)
        channels, side = self.trunk.channels[-1], size >> len(stages)
        self.norm = BatchNorm2d(channels)
        self.linear = nn.Linear(channels * side**2, embedding_dim)
        self.embedding_norm = BatchNorm1d(embedding_dim, affine=embedding_affine)

    def forward(
        self,
        faces: Tensor,  # [N, 3, size, size], in [-1, 1]
    ) -> Tensor:
        """Returns unit-length embeddings [N, embedding_dim]. Raises ValueError at another shape."""
        if faces.ndim != 4 or faces.shape[1:] != (3, self.size, self.size):
            raise ValueError(
                f"faces have shape {tuple(faces.shape)}, this embedder reads "
                f"[N, 3, {self.size}, {self.size}]"
            )
        feature = self.norm(self.trunk(faces)[-1])
        return unit_length(self.embedding_norm(self.linear(feature.flatten(1))))

    def embed_images(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1], aligned as FFHQ is
    ) -> Tensor:
        """Embeds the training crop: [N, embedding_dim]."""
        return self(training_crop(images, self.size))


def arcface_ir_se50() -> FaceEmbedder:
    """Builds the identity network of training losses, without weights: 43.8 M parameters."""
    return FaceEmbedder(stages=IR_SE50)


def curricularface_ir_101() -> FaceEmbedder:
    """Builds the identity network of evaluations, without weights: 65.2 M parameters.

    The official scripts feed it faces that MTCNN aligned to 112 pixels.
    """
    return FaceEmbedder(stages=IR_101, excitation=False, embedding_affine=False)
