"""What training and evaluation ask of judges, and the judges of the papers.

`PortraitJudges` answers the same questions in the embedded domain, so that one task trains on
portraits, faces and cars. Faces: ArcFace and LPIPS (pSp, e4e, CLCAE section 3.3). Anything else:
MoCo v2 and LPIPS (e4e and CLCAE; the official CLCAE command for cars gives the face network).
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from clcae.frozen.face_embedders import FaceEmbedder
from clcae.frozen.moco import MoCo
from clcae.frozen.perceptual import LPIPS


class Judges(Protocol):
    """Who or what is shown, and how different two pictures are; every network once a picture."""

    identity_name: str  # what protocols call the one
    distance_name: str  # and the other

    def features(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]
    ) -> list[Tensor]:
        """All that the other questions need, [N, ...] each."""

    def embed(self, features: Sequence[Tensor]) -> Tensor:
        """Embeddings [N, D] of unit length; their cosine is the similarity."""

    def distance(self, features: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
        """Perceptual distance [N] of the pictures, 0 or more."""

    def embed_images(self, images: Tensor) -> Tensor:
        """`embed` of images, without what only `distance` needs."""

    def distance_of_images(self, images: Tensor, others: Tensor) -> Tensor:
        """`distance` of image pairs, without what only `embed` needs."""


def trunk_of(judges: Judges) -> nn.Module:
    """The IR-SE trunk of the judges' identity network, from which encoders may start.

    Raises:
        ValueError: it has none.
    """
    trunk = getattr(getattr(judges, "identity", None), "trunk", None)
    if not isinstance(trunk, nn.Module):
        raise ValueError(
            "start='identity' needs judges whose identity network has an IR-SE trunk, as faces and "
            "portraits have: choose 'random'"
        )
    return trunk


class PaperJudges(nn.Module):
    """An embedder (`FaceEmbedder`, `MoCo`) and LPIPS, frozen.

    Pictures may have any size. The embedder brings them to its own; LPIPS reads them as they are,
    so pictures at 256 give the papers' distances.
    """

    def __init__(
        self,
        *,
        identity: FaceEmbedder | MoCo,
        perceptual: LPIPS,
        identity_name: str,
    ) -> None:
        super().__init__()
        self.identity_name, self.distance_name = identity_name, perceptual.name
        self.identity = identity
        self.perceptual = perceptual
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "PaperJudges":
        """Judges never train: they stay in evaluation mode."""
        return super().train(False)

    def features(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]
    ) -> list[Tensor]:
        """The embedding [N, D], then LPIPS's features [N, C_i, h_i, w_i]."""
        return [self.embed_images(images), *self.perceptual.features(images)]

    def embed(self, features: Sequence[Tensor]) -> Tensor:
        """Embeddings [N, D] from `features`."""
        return features[0]

    def distance(self, features: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
        """LPIPS [N] between two batches of `features`."""
        return self.perceptual.distance(features[1:], others[1:])

    def embed_images(self, images: Tensor) -> Tensor:
        """Embeddings [N, D] of images."""
        return self.identity.embed_images(images)

    def distance_of_images(self, images: Tensor, others: Tensor) -> Tensor:
        """LPIPS [N] of image pairs."""
        return self.perceptual(images, others)
