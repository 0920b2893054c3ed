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
from clcae.faces.face import Face

LOOK = 256  # pixels of the crop that is looked at again
LARGEST_CORRECTION = 0.25  # by which corners of the quad may move then, of its side
SMALLEST_CROP = 48.0  # pixels of the picture; smaller faces are tiny
LARGEST_TURN = 0.8  # how far the nose may lie from between the eyes, in eye distances
SMALLEST_EYE_DISTANCE = 0.2  # of the width of the face's box; frontal faces have about 0.48
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


def check_frontal(face: Face) -> None:
    """Refuses a profile, of which a portrait's crop and its landmarks mean little.

    A head counts as a profile where the nose lies more than 0.8 eye distances beside the middle
    of the eyes, along the line of the eyes. With the nose standing out by as much as half the
    distance of the pupils, that is a turn of about 58 degrees. It also does where the eyes are
    closer than a fifth of the box: detectors put the eye they cannot see near the other.

    Raises:
        ValueError: It is a profile.
    """
    left, right, nose = face.landmarks[:3]
    along = right - left
    distance = float(along.norm())
    width = float(face.box[2] - face.box[0])
    if distance <= SMALLEST_EYE_DISTANCE * width:
        raise ValueError(
            f"a face in profile: its eyes are {distance:.0f} pixels apart in a face of {width:.0f}"
        )
    turn = abs(float((nose - (left + right) / 2) @ along)) / distance**2
    if turn > LARGEST_TURN:
        raise ValueError(
            f"a face in profile: the nose lies {turn:.1f} eye distances beside the middle of the "
            f"eyes, expected at most {LARGEST_TURN}"
        )


def check_size(quad: Tensor) -> None:
    """Refuses a tiny face: a crop of fewer than 48 pixels of the picture has nothing to show.

    Args:
        quad: The crop's corners [4, 2] in the picture.

    Raises:
        ValueError: It is tiny.
    """
    side = float((quad[3] - quad[0]).norm())
    if side < SMALLEST_CROP:
        raise ValueError(
            f"a tiny face: its crop takes {side:.0f} pixels of the picture, expected at least "
            f"{SMALLEST_CROP:.0f}"
        )
