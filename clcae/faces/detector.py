"""MTCNN, the default face detector.

Zhang et al. 2016 (Joint Face Detection and Alignment using Multi-task Cascaded Convolutional
Networks) as ported by facenet-pytorch 2.5, whose wheel holds the weights. Deviations: a large
picture is scaled down before the search, and searched at its own size only where that finds
nothing; faces below a score of 0.9 are left out.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clcae.faces.alignment import Face

SMALLEST_SCORE = 0.9
LARGEST_SEARCH = 4096  # pixels; larger pictures are scaled down even for the second search


class MTCNNDetector:
    """Finds faces by MTCNN; the sizes are those of `mtcnn_detector`."""

    def __init__(self, *, network: Any, longest_side: int, smallest_face: int) -> None:
        self.network = network
        self.longest_side = longest_side
        self.smallest_face = smallest_face

    def detect(
        self,
        image: Tensor,  # [3, H, W], in [-1, 1]
    ) -> list[Face]:
        """Finds all faces of a picture. Raises ValueError if the image has another shape."""
        if image.ndim != 3 or image.shape[0] != 3:
            raise ValueError(f"image is {tuple(image.shape)}: expected one image [3, H, W]")
        faces = self._search(image, self.longest_side)
        if not faces and max(image.shape) > self.longest_side:
            faces = self._search(image, LARGEST_SEARCH)
        return faces

    def _search(self, image: Tensor, longest_side: int) -> list[Face]:
        """Searches a picture scaled down to `longest_side`; coordinates are the original's."""
        height, width = image.shape[-2:]
        factor = min(longest_side / max(height, width), 1.0)
        rows, columns = round(height * factor), round(width * factor)
        if min(rows, columns) < self.smallest_face:
            return []  # the network fails on pictures without room for a face
        if factor < 1:
            size = (rows, columns)
            image = F.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]
        pixels = (image.detach().permute(1, 2, 0) + 1) * 127.5
        boxes, scores, points = self.network.detect(pixels, landmarks=True)
        if boxes is None:
            return []
        scale = torch.tensor([width / columns, height / rows], dtype=torch.float64)
        return [
            Face(
                landmarks=(torch.tensor(point.tolist(), dtype=torch.float64) + 0.5) * scale - 0.5,
                box=(torch.tensor(box.tolist(), dtype=torch.float64) + 0.5) * scale.repeat(2) - 0.5,
                score=float(score),
            )
            for box, score, point in zip(boxes, scores, points, strict=True)
            if score >= SMALLEST_SCORE
        ]


def mtcnn_detector(
    *,
    device: str | torch.device = "cpu",
    longest_side: int = 1024,
    smallest_face: int = 20,
) -> MTCNNDetector:
    """Builds the default detector, with the weights in the wheel of facenet-pytorch.

    Args:
        device: where the network runs; pictures may lie anywhere.
        longest_side: pixels to which a larger picture is scaled down for the search; if that finds
            no face (of 80 pixels or more in 4096), it is searched again at its own size.
        smallest_face: pixels across of the smallest face, after scaling.

    Raises:
        ValueError: if facenet-pytorch is not installed, or a number is out of range.
    """
    if smallest_face < 12 or longest_side < smallest_face:
        raise ValueError(
            f"faces from {smallest_face} pixels in pictures of {longest_side}: expected 12 or "
            "more, and no more than the picture"
        )
    try:
        from facenet_pytorch import MTCNN
    except ImportError as error:
        raise ValueError("finding faces needs facenet-pytorch: pip install -e '.[face]'") from error
    with torch.random.fork_rng(devices=[]):  # its layers draw weights before they load them
        network = MTCNN(keep_all=True, min_face_size=smallest_face, device=torch.device(device))
    network.requires_grad_(False)
    return MTCNNDetector(network=network, longest_side=longest_side, smallest_face=smallest_face)
