"""A face in a picture: five landmarks, a box, a score; the choice among several.

Coordinates are pixels (x, y) of the upright picture, with the centre of the top left pixel at
(0, 0). Left and right are the picture's, so that the left eye is the one nearer to its left side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Which = Literal["largest", "all"] | int


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
