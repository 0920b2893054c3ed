"""Identity similarity: how far two images show the same person to an embedding network.

Official scripts (pSp, e4e, HyperStyle) align both images by detected landmarks, embed them with
CurricularFace, and skip images without a detected face in silence. Here the embedder returns NaN
rows for such images; they are not counted, and `update` tells which they were. That embedder is
`DetectedFaceEmbedder`; on aligned pictures `embed_images` of the judges is another.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clcae.metrics.checks import check_images
from clcae.metrics.metric import Direction, MeanMetric

Embedder = Callable[[Tensor], Tensor]


def cosine_similarity(
    outputs: Tensor,  # [N, D]
    targets: Tensor,  # [N, D]
) -> Tensor:
    """Cosine of the angle between each pair of embeddings.

    Args:
        outputs: Embeddings [N, D], of any norm but 0.
        targets: Embeddings of the same shape.

    Returns:
        [N], float64 in [-1, 1]; NaN where an embedding is NaN or has no direction.

    Raises:
        ValueError: If shapes differ.
    """
    if outputs.shape != targets.shape or outputs.ndim != 2:
        raise ValueError(
            f"embeddings {tuple(outputs.shape)} and {tuple(targets.shape)}: expected one [N, D]"
        )
    first, second = outputs.detach().cpu().double(), targets.detach().cpu().double()
    cosines = F.cosine_similarity(first, second, dim=1, eps=0.0)
    directed = (first.norm(dim=1) > 0) & (second.norm(dim=1) > 0)
    return torch.where(directed, cosines, torch.nan).clamp(-1, 1)


class IdentitySimilarity(MeanMetric):
    """Mean over images of the cosine between embeddings of output and target.

    Args:
        embedder: Images [N, 3, H, W] in [-1, 1] to embeddings [N, D]; a row of NaN where there is
            no face. Crop and alignment are its own.
        embedder_name: Network, crop and alignment in words, for the protocol.
    """

    direction: ClassVar[Direction] = "higher"
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def __init__(self, *, embedder: Embedder, embedder_name: str) -> None:
        super().__init__()
        self.embedder = embedder
        self.embedder_name = embedder_name

    @property
    def protocol(self) -> Mapping[str, str]:
        """Everything that would change the value, in words."""
        return {"network": self.embedder_name, "value": "mean cosine over images with a face"}

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cosine of each pair of images, [N]; NaN where there is no face.

        Raises:
            ValueError: If the images are not in the range, or embeddings differ in shape.
        """
        check_images(outputs, targets)
        return cosine_similarity(self.embedder(outputs), self.embedder(targets))
