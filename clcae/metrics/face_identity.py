"""Embedders of the face that a detector finds in a picture, as the papers judge identity.

pSp, e4e, ReStyle, HyperStyle and StyleRes find the face in both pictures with MTCNN, cut it to 112
pixels by its landmarks, and compare what CurricularFace (IR-101) makes of it. ArcFace and facenet
are used likewise by others; so any embedder and any crop go. Deviations: of several faces the
largest counts (official: the one with the best score), and `clcae.faces.recognition_crop` resamples
with antialiasing. Pictures without a face get a row of NaN, which `IdentitySimilarity` does not
count and names.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from clcae.faces import Detector, Face, choose, recognition_crop
from clcae.metrics.checks import check_image_set

FaceCrop = Callable[[Tensor, Face], Tensor]  # picture [3, H, W] and its face to [3, size, size]


def landmark_crop(size: int = 112) -> FaceCrop:
    """A crop by the landmarks, of the template of ArcFace scaled to `size`."""

    def crop(image: Tensor, face: Face) -> Tensor:
        return recognition_crop(image, face.landmarks, size=size)

    return crop


def box_crop(size: int = 160) -> FaceCrop:
    """The detected box squeezed to a square, as facenet-pytorch crops for its own network.

    The box is cut to whole pixels within the picture and averaged to the size, as `extract_face`
    does with tensors and no margin.
    """

    def crop(image: Tensor, face: Face) -> Tensor:
        height, width = image.shape[-2:]
        left, top, right, bottom = face.box.tolist()
        left, top = int(max(left, 0)), int(max(top, 0))
        right, bottom = int(min(right, width)), int(min(bottom, height))
        part = image[None, :, top : max(bottom, top + 1), left : max(right, left + 1)]
        return F.interpolate(part, size=(size, size), mode="area")[0]

    return crop


class DetectedFaceEmbedder:
    """Pictures -> embeddings of their largest face; NaN where none is found.

    Args:
        detector: What finds faces, as `mtcnn_detector()`.
        network: Crops [M, 3, size, size] in [-1, 1] to embeddings [M, D].
        dimension: D.
        crop: What cuts a face out.
        name: Detector, crop and network in words, for the protocol.
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
        """Embeddings [N, D]; a row of NaN where there is no face.

        Raises:
            ValueError: If the images are not in the range, or the network gives another shape or
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
