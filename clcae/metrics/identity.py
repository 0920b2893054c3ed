"""Identity similarity: cosine between face embeddings of a picture and its target.

pSp, e4e, ReStyle, HyperStyle and StyleRes find the face in both pictures with MTCNN, cut it to 112
pixels by its landmarks, embed it with CurricularFace (IR-101), and skip images without a face in
silence. ArcFace and facenet are used likewise by others; so any embedder and any crop go. Here the
embedder returns a row of NaN for an image without a face; it is not counted, and `update` tells
which it was. Deviations of `DetectedFaceEmbedder`: of several faces the largest counts (official:
the one with the best score), and `clcae.faces.recognition_crop` resamples with antialiasing. On
aligned pictures `embed_images` of the judges is another embedder.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from clcae.faces import Detector, Face, choose, recognition_crop
from clcae.frozen.inception import FACE_SIZE
from clcae.metrics.metric import MeanMetric, check_image_set, check_images

Embedder = Callable[[Tensor], Tensor]
FaceCrop = Callable[[Tensor, Face], Tensor]  # picture [3, H, W] and its face to [3, size, size]


def cosine_similarity(
    outputs: Tensor,  # [N, D], of any norm but 0
    targets: Tensor,  # [N, D]
) -> Tensor:
    """Computes the cosine between each pair of embeddings: [N], float64 in [-1, 1].

    NaN where an embedding is NaN or has no direction. Raises ValueError if shapes differ.
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
    """Averages the cosine between embeddings of output and target over images.

    Args:
        embedder: images [N, 3, H, W] in [-1, 1] to embeddings [N, D]; a row of NaN where there is
            no face. Crop and alignment are its own.
        embedder_name: network, crop and alignment in words, for the protocol.
    """

    direction = "higher"
    range = (-1.0, 1.0)

    def __init__(self, *, embedder: Embedder, embedder_name: str) -> None:
        super().__init__()
        self.embedder = embedder
        self.embedder_name = embedder_name

    @property
    def protocol(self) -> Mapping[str, str]:
        return {"network": self.embedder_name, "value": "mean cosine over images with a face"}

    def values(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Computes the cosine of each pair of images, [N]; NaN where there is no face.

        Raises:
            ValueError: if the images are not in the range, or embeddings differ in shape.
        """
        check_images(outputs, targets)
        return cosine_similarity(self.embedder(outputs), self.embedder(targets))


def landmark_crop(image: Tensor, face: Face) -> Tensor:
    """Warps a face to the ArcFace landmark template of 112 pixels."""
    return recognition_crop(image, face.landmarks, size=112)


def box_crop(image: Tensor, face: Face) -> Tensor:
    """Squeezes the detected box to a square of 160 pixels, as facenet-pytorch does.

    The box is cut to whole pixels within the picture and averaged to the size, as `extract_face`
    does with tensors and no margin.
    """
    height, width = image.shape[-2:]
    left, top, right, bottom = face.box.tolist()
    left, top = int(max(left, 0)), int(max(top, 0))
    right, bottom = int(min(right, width)), int(min(bottom, height))
    part = image[None, :, top : max(bottom, top + 1), left : max(right, left + 1)]
    return F.interpolate(part, size=(FACE_SIZE, FACE_SIZE), mode="area")[0]


class DetectedFaceEmbedder:
    """Embeds the largest face of each picture; a row of NaN where none is found.

    Args:
        detector: face detector, as `mtcnn_detector()`.
        network: crops [M, 3, size, size] in [-1, 1] to embeddings [M, D].
        dimension: D.
        crop: cuts a face out of a picture.
        name: detector, crop and network in words, for messages.
    """

    def __init__(
        self,
        *,
        detector: Detector,
        network: Callable[[Tensor], Tensor],
        dimension: int,
        crop: FaceCrop,
        name: str,
    ) -> None:
        self.detector = detector
        self.network = network
        self.dimension = dimension
        self.crop = crop
        self.name = name

    @torch.no_grad()
    def __call__(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]
    ) -> Tensor:
        """Computes embeddings [N, D].

        Raises:
            ValueError: if the images are not in the range, or the network gives another shape or
                a value that is not finite.
        """
        check_image_set(images)
        embeddings = images.new_full((len(images), self.dimension), torch.nan)
        crops, places = [], []
        for place, image in enumerate(images):
            faces = self.detector.detect(image)
            if faces:
                crops.append(self.crop(image, choose(faces, "largest")[0]))
                places.append(place)
        if not crops:
            return embeddings
        found = self.network(torch.stack(crops).to(images))
        if found.shape != (len(crops), self.dimension) or not found.isfinite().all():
            raise ValueError(
                f"{self.name} gave {tuple(found.shape)} for {len(crops)} faces: expected finite "
                f"[{len(crops)}, {self.dimension}]"
            )
        embeddings[places] = found.to(embeddings)
        return embeddings
