"""A face of a photograph as the crop that encoders read, with what takes it back.

Karras et al. 2019, appendix A, and NVlabs/ffhq-dataset for the crop (`clcae.faces.crop`). The
second look, what is refused, and that an aligned picture is not aligned again, are ours.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from clcae.faces.crop import crop_quad, ffhq_quad, is_aligned, picture_quad
from clcae.faces.detector import Detector
from clcae.faces.face import Face, check_frontal, check_size

LOOK = 256  # pixels of the crop that is looked at again
LARGEST_CORRECTION = 0.25  # by which corners of the quad may move then, of its side
MIRRORED = (1, 0, 2, 4, 3)  # landmarks as they are called in a mirrored picture


@dataclass(frozen=True)
class Crop:
    """An aligned face.

    Args:
        image: The crop [3, S, S] in [-1, 1].
        quad: Its corners [4, 2] in the photograph, for `paste_back`.
        landmarks: [5, 2] pixels of the photograph.
        was_aligned: Whether the photograph was such a crop already: it was resized, and the quad
            is the whole of it.
    """

    image: Tensor
    quad: Tensor
    landmarks: Tensor
    was_aligned: bool


def align_face(
    image: Tensor,  # [3, H, W], in [-1, 1]
    face: Face,
    *,
    size: int,
) -> Crop:
    """Crops a face as FFHQ does, or resizes a picture that is such a crop already.

    Args:
        image: The photograph, in [-1, 1].
        face: The face in it.
        size: Pixels of the crop, on each side.

    Raises:
        ValueError: The face is a profile, or tiny.
    """
    check_frontal(face)
    quad = ffhq_quad(face.landmarks)
    if is_aligned(quad, *image.shape[-2:]):
        return take_whole(image, face.landmarks, size=size)
    check_size(quad)
    return take_crop(image, face.landmarks, size=size)


def take_crop(
    image: Tensor,  # [3, H, W], in [-1, 1]
    landmarks: Tensor,  # [5, 2] pixels
    *,
    size: int,
) -> Crop:
    """The FFHQ crop by landmarks, whatever they show."""
    quad = ffhq_quad(landmarks)
    return Crop(crop_quad(image, quad, size), quad, landmarks, was_aligned=False)


def take_whole(
    image: Tensor,  # [3, H, W], in [-1, 1]
    landmarks: Tensor,  # [5, 2] pixels
    *,
    size: int,
) -> Crop:
    """The whole picture as the crop, resized with antialiasing."""
    crop = image
    if tuple(image.shape[-2:]) != (size, size):
        resized = F.interpolate(image[None], size=(size, size), mode="bicubic", antialias=True)
        crop = resized[0].clamp(-1, 1)
    return Crop(crop, picture_quad(*image.shape[-2:]), landmarks, was_aligned=True)


def look_again(
    image: Tensor,  # [3, H, W], in [-1, 1]
    face: Face,
    *,
    detector: Detector,
) -> Face:
    """Finds the landmarks of a face once more, in its own crop and in the crop's mirror image.

    Landmarks of one face differ with its size and its turn in the picture: with MTCNN the corners
    of the crop by 2 % of its side, and more where the head is tilted. In the crop every face is
    upright and of one size, and the mean with the mirror image favours no side; that leaves 0.5 %.

    Args:
        image: The photograph, in [-1, 1].
        face: The face in it.
        detector: What finds it again.

    Returns:
        The face with its better landmarks; the same where it is not found again, or elsewhere.
    """
    quad = ffhq_quad(face.landmarks)
    crop = crop_quad(image, quad, LOOK)
    found = []
    for picture, mirrored in ((crop, False), (crop.flip(-1), True)):
        faces = detector.detect(picture)
        if not faces:
            return face
        middle = (LOOK - 1) / 2
        points = min((f.landmarks for f in faces), key=lambda p: float((p.mean(0) - middle).norm()))
        if mirrored:
            points = points[list(MIRRORED)] * points.new_tensor([-1, 1])
            points = points + points.new_tensor([LOOK - 1, 0])
        found.append(points)
    edges = torch.stack([quad[3] - quad[0], quad[1] - quad[0]])
    landmarks = quad[0] + (torch.stack(found).mean(0) + 0.5) / LOOK @ edges
    correction = (ffhq_quad(landmarks) - quad).norm(dim=1).max() / edges[0].norm()
    return replace(face, landmarks=landmarks) if correction <= LARGEST_CORRECTION else face
