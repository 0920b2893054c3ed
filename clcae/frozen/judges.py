"""Judges: the identity and perceptual networks of losses and metrics; the judges of the papers.

`PortraitJudges` has the same interface in the embedded domain, so that one task trains on
portraits, faces and cars. Faces: ArcFace and LPIPS (pSp, e4e, CLCAE section 3.3). Other subjects:
MoCo v2 and LPIPS (e4e and CLCAE; the official CLCAE command for cars gives the face network).
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from clcae.frozen.face_embedders import FaceEmbedder
from clcae.frozen.moco import MoCo
from clcae.frozen.module import FrozenModule
from clcae.frozen.perceptual import LPIPS
from clcae.nn.trunk import Trunk


class PerceptualNetwork(Protocol):
    """Tells how far pictures are from each other, by features of its own."""

    def features(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]
    ) -> list[Tensor]:
        """Computes the features [N, ...] that `distance` reads."""

    def distance(self, features: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
        """Computes perceptual distances [N], 0 or more, of pictures in pairs."""


class Judges(PerceptualNetwork, Protocol):
    """Embeds identity and perceptual features of a picture, in one pass of every network."""

    identity_name: str  # identity network, for protocols
    distance_name: str  # perceptual network, for protocols

    @property
    def identity_trunk(self) -> Trunk | None:
        """IR-SE trunk of the identity network; None if it has another architecture."""

    def embed(self, features: Sequence[Tensor]) -> Tensor:
        """Computes identity embeddings [N, D] of unit length; their cosine is the similarity."""


def trunk_of(judges: Judges) -> Trunk:
    """Returns the IR-SE trunk of the judges' identity network, from which encoders may start.

    Raises:
        ValueError: if the identity network has another architecture.
    """
    if judges.identity_trunk is None:
        raise ValueError(
            "start='identity' needs judges whose identity network has an IR-SE trunk, as faces and "
            "portraits have: choose 'random'"
        )
    return judges.identity_trunk


class PaperJudges(FrozenModule):
    """Combines an embedder (`FaceEmbedder`, `MoCo`) and LPIPS.

    Pictures may have any size: the embedder resizes them, LPIPS does not, so pictures at 256 give
    the papers' distances.
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

    @property
    def identity_trunk(self) -> Trunk | None:
        """Trunk of a face network; MoCo has none."""
        return self.identity.trunk if isinstance(self.identity, FaceEmbedder) else None

    def features(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]
    ) -> list[Tensor]:
        """Computes the embedding [N, D], then LPIPS's features [N, C_i, h_i, w_i]."""
        return [self.identity.embed_images(images), *self.perceptual.features(images)]

    def embed(self, features: Sequence[Tensor]) -> Tensor:
        """Returns the embeddings [N, D] among `features`."""
        return features[0]

    def distance(self, features: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
        """Computes LPIPS [N] between two batches of `features`."""
        return self.perceptual.distance(features[1:], others[1:])
