"""Faces in photographs and their crops, which encoders read.

The crop is that of FFHQ: Karras et al. 2019, appendix A, and NVlabs/ffhq-dataset
(`clcae.faces.crop`). The second look (`clcae.faces.search`), the refusal of profiles and tiny
faces, and the rule that an aligned picture is not aligned again are ours.

Coordinates are pixels (x, y) of the upright picture, with the centre of the top left pixel at
(0, 0). Left and right are the picture's: the left eye is the one nearer to its left side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch.nn.functional as F
from torch import Tensor

from clcae.faces.crop import check_size, crop_quad, ffhq_quad, is_aligned, picture_quad

Which = Literal["largest", "all"] | int

LARGEST_TURN = 0.8  # how far the nose may lie from between the eyes, in eye distances
SMALLEST_EYE_DISTANCE = 0.2  # of the width of the face's box; frontal faces have about 0.48


@dataclass(frozen=True)
class Face:
    """One detected face.

    Args:
        landmarks: [5, 2] pixels, float64 on the CPU: left eye, right eye, nose, left and right
            corner of the mouth, as seen in the picture.
        box: [4] pixels, float64 on the CPU: left, top, right, bottom. It may leave the picture.
        score: the detector's confidence, from 0 to 1.
    """

    landmarks: Tensor
    box: Tensor
    score: float

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        left, top, right, bottom = self.box.tolist()
        return max(right - left, 0.0) * max(bottom - top, 0.0)


class Detector(Protocol):
    """Finds faces in pictures."""

    def detect(
        self,
        image: Tensor,  # [3, H, W], in [-1, 1]
    ) -> list[Face]:
        """Finds all faces of a picture, in any order."""
        ...


@dataclass(frozen=True)
class Crop:
    """An aligned face.

    Args:
        image: [3, S, S] in [-1, 1].
        quad: corners [4, 2] in the photograph, for `paste_back`.
        landmarks: [5, 2] pixels of the photograph.
        was_aligned: whether the photograph was such a crop already; then it was only resized, and
            the quad is the whole of it.
    """

    image: Tensor
    quad: Tensor
    landmarks: Tensor
    was_aligned: bool


def choose(faces: Sequence[Face], which: Which) -> list[Face]:
    """Selects faces by "largest" (area of the box), "all", or index (0 = leftmost box).

    Returns:
        One face, or all of them from left to right.

    Raises:
        ValueError: if there is no face, or none of that index.
    """
    if not faces:
        raise ValueError("no face found; expected a picture in which both eyes can be seen")
    ordered = sorted(faces, key=lambda face: float(face.box[0] + face.box[2]))
    if which == "all":
        return ordered
    if which == "largest":
        return [max(ordered, key=lambda face: face.area)]
    if not isinstance(which, int) or which < 0:
        raise ValueError(f"faces {which!r}: expected largest, all, or a number from 0")
    if which >= len(ordered):
        raise ValueError(
            f"no face {which}: {len(ordered)} found, numbered from 0 at the left of the picture"
        )
    return [ordered[which]]


def align_face(
    image: Tensor,  # [3, H, W], in [-1, 1]
    face: Face,
    *,
    size: int,
) -> Crop:
    """Crops a face as FFHQ does to [3, size, size]; a picture that is such a crop is resized.

    Raises:
        ValueError: if the face is a profile, or tiny.
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
    """Takes the FFHQ crop by landmarks, without any check of the face."""
    quad = ffhq_quad(landmarks)
    return Crop(crop_quad(image, quad, size), quad, landmarks, was_aligned=False)


def take_whole(
    image: Tensor,  # [3, H, W], in [-1, 1]
    landmarks: Tensor,  # [5, 2] pixels
    *,
    size: int,
) -> Crop:
    """Takes the whole picture as the crop, resized with antialiasing."""
    crop = image
    if tuple(image.shape[-2:]) != (size, size):
        resized = F.interpolate(image[None], size=(size, size), mode="bicubic", antialias=True)
        crop = resized[0].clamp(-1, 1)
    return Crop(crop, picture_quad(*image.shape[-2:]), landmarks, was_aligned=True)


def check_frontal(face: Face) -> None:
    """Raises ValueError for a profile, whose landmarks make no crop of a portrait.

    A head is a profile if the nose lies more than 0.8 eye distances beside the middle of the eyes,
    along the line of the eyes: a turn of about 58 degrees if the nose stands out by half the
    distance of the pupils. It also is if the eyes are closer than a fifth of the box, because
    detectors put the eye they cannot see near the other.
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
