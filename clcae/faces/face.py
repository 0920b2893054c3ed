"""A face in a picture: five landmarks, a box, a score; which faces are meant, and which will do.

Coordinates are pixels (x, y) of the upright picture, with the centre of the top left pixel at
(0, 0). Left and right are the picture's, so that the left eye is the one nearer to its left side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Which = Literal["largest", "all"] | int

SMALLEST_CROP = 48.0  # pixels of the picture; smaller faces are tiny
LARGEST_TURN = 0.8  # how far the nose may lie from between the eyes, in eye distances
SMALLEST_EYE_DISTANCE = 0.2  # of the width of the face's box; frontal faces have about 0.48


@dataclass(frozen=True)
class Face:
    """One detected face.

    Args:
        landmarks: [5, 2] pixels, float64 on the CPU: left eye, right eye, nose, left and right
            corner of the mouth, as seen in the picture.
        box: [4] pixels, float64 on the CPU: left, top, right, bottom. It may leave the picture.
        score: The detector's confidence, from 0 to 1.
    """

    landmarks: Tensor
    box: Tensor
    score: float

    @property
    def area(self) -> float:
        """Of the box, in pixels."""
        left, top, right, bottom = self.box.tolist()
        return max(right - left, 0.0) * max(bottom - top, 0.0)


def choose(faces: Sequence[Face], which: Which) -> list[Face]:
    """Takes the faces that are meant.

    Args:
        faces: All faces of a picture.
        which: "largest" by the area of the box; "all", left to right; or a number, counted from 0
            at the left, by the middle of the box.

    Returns:
        One face, or all of them from left to right.

    Raises:
        ValueError: There is no face, or none of that number.
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
