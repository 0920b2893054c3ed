"""Finds the faces of a photograph for cropping; every detection is checked by a second look.

A detector trained on upright faces finds none in a photograph that lies on its side, or takes
something else for one, with scores up to 0.99. What its second look at the crop does not confirm is
searched in the photograph's other three turns too; what no turn confirms is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clcae.faces.alignment import Crop, Detector, Face, Which, align_face, choose
from clcae.faces.crop import crop_quad, ffhq_quad

LOOK = 256  # pixels of the crop that is searched a second time
LARGEST_CORRECTION = 0.25  # by which the second look may move corners of the quad, of its side
MOST_TRIED = 3  # of the largest faces, until the second look confirms one
CERTAIN = 0.99  # score of the second look from which no other turn is tried
MIRRORED = (1, 0, 2, 4, 3)  # order of the landmarks in a mirrored picture
TURNING = "if the head does not stand upright in the photograph, turning it may help"


@dataclass(frozen=True)
class Sighting:
    """A detected face after the second look.

    Args:
        face: with refined landmarks where the second look agrees.
        number: its index among all faces of the photograph, from the left of the upright one.
        count: number of all faces.
        certainty: lower score of the second look's two searches; 0 where one of them finds no face
            or both find it elsewhere.
    """

    face: Face
    number: int
    count: int
    certainty: float


def crop_faces(
    image: Tensor,  # [3, H, W], in [-1, 1]
    which: Which,
    *,
    size: int,
    detector: Detector,
) -> tuple[list[tuple[int, Crop]], list[str]]:
    """Crops the chosen faces of a photograph of any turn as FFHQ does.

    Returns:
        Crops with the number of their face, from left to right, and of every other chosen face why
        it cannot be used.

    Raises:
        ValueError: if no face is found, or none of that number.
    """
    crops, refused = [], []
    for sighting in find_faces(image, which, detector=detector):
        try:
            crop = align_face(image, sighting.face, size=size)
            if not sighting.certainty:
                raise ValueError(f"a doubtful face, which a second look does not show; {TURNING}")
            crops.append((sighting.number, crop))
        except ValueError as error:
            place = f" (face {sighting.number} of {sighting.count} from 0 at the left)"
            doubt = "" if sighting.certainty or TURNING in str(error) else f"; {TURNING}"
            refused.append(f"{error}{doubt}{place if sighting.count > 1 else ''}")
    return crops, refused


def find_faces(
    image: Tensor,  # [3, H, W], in [-1, 1]
    which: Which,
    *,
    detector: Detector,
) -> list[Sighting]:
    """Finds the chosen faces in the turn of the photograph in which they are most certain.

    The other three turns are searched only if no chosen face is certain in the photograph as it is.
    Coordinates are those of the photograph as it is.

    Raises:
        ValueError: if no face is found in any turn, or none of that number.
    """
    best, turn = _sightings(image, which, detector), 0
    if _certainty(best) < CERTAIN:
        for other in (1, 2, 3):
            seen = _sightings(image.rot90(other, (1, 2)), which, detector)
            if _certainty(seen) > _certainty(best):
                best, turn = seen, other
    if not best:
        found = "no face found; expected a picture in which both eyes can be seen"
        if isinstance(which, int) and (faces := detector.detect(image)):
            found = f"no face {which}: {len(faces)} found, numbered from 0 at the left"
        raise ValueError(f"{found}; {TURNING}")
    return [replace(s, face=_turned_back(s.face, turn, *image.shape[-2:])) for s in best]


def _sightings(image: Tensor, which: Which, detector: Detector) -> list[Sighting]:
    """Looks again at the chosen faces; where the largest is not confirmed, at the next ones."""
    found = detector.detect(image)
    if not found or (isinstance(which, int) and which >= len(found)):
        return []
    everyone = choose(found, "all")
    chosen = choose(found, which)
    if which == "largest":
        chosen = sorted(found, key=lambda face: -face.area)[:MOST_TRIED]
    sightings = []
    for face in chosen:
        number = next(index for index, other in enumerate(everyone) if other is face)
        better, certainty = _second_look(image, face, detector)
        sightings.append(Sighting(better, number, len(found), certainty))
        if which == "largest" and certainty:
            return sightings[-1:]
    return sightings[:1] if which == "largest" else sightings


def _certainty(sightings: Sequence[Sighting]) -> float:
    return max((sighting.certainty for sighting in sightings), default=-1.0)


def look_again(
    image: Tensor,  # [3, H, W], in [-1, 1]
    face: Face,
    *,
    detector: Detector,
) -> Face:
    """Refines landmarks by searching the face's own crop and its mirror image.

    Landmarks of one face differ with its size and its turn in the picture: with MTCNN the corners
    of the crop by 2 % of its side, and more where the head is tilted. In the crop every face is
    upright and of one size, and the mean with the mirror image favours no side; that leaves 0.5 %.

    Returns:
        The face with refined landmarks; the same face where it is not found again, or elsewhere.
    """
    return _second_look(image, face, detector)[0]


def _second_look(image: Tensor, face: Face, detector: Detector) -> tuple[Face, float]:
    """Returns the refined face and the lower score of both searches, 0 where they disagree."""
    quad = ffhq_quad(face.landmarks)
    try:
        crop = crop_quad(image, quad, LOOK)
    except ValueError:  # the quad lies outside the picture
        return face, 0.0
    found, scores = [], []
    for picture, mirrored in ((crop, False), (crop.flip(-1), True)):
        faces = detector.detect(picture)
        if not faces:
            return face, 0.0
        middle = (LOOK - 1) / 2
        nearest = min(faces, key=lambda f: float((f.landmarks.mean(0) - middle).norm()))
        points = nearest.landmarks
        if mirrored:
            points = points[list(MIRRORED)] * points.new_tensor([-1, 1])
            points = points + points.new_tensor([LOOK - 1, 0])
        found.append(points)
        scores.append(nearest.score)
    edges = torch.stack([quad[3] - quad[0], quad[1] - quad[0]])
    landmarks = quad[0] + (torch.stack(found).mean(0) + 0.5) / LOOK @ edges
    correction = (ffhq_quad(landmarks) - quad).norm(dim=1).max() / edges[0].norm()
    if correction > LARGEST_CORRECTION:
        return face, 0.0
    return replace(face, landmarks=landmarks), min(scores)


def _turned_back(face: Face, turn: int, height: int, width: int) -> Face:
    """Maps a face of a picture turned by `turn` quarters (`Tensor.rot90`) into the picture."""
    for quarter in reversed(range(turn)):
        right = (height if quarter % 2 else width) - 1  # of the picture before this quarter
        landmarks = _quarter_back(face.landmarks, right)
        corners = _quarter_back(face.box.reshape(2, 2), right)
        box = torch.cat([corners.amin(0), corners.amax(0)])
        face = replace(face, landmarks=landmarks, box=box)
    return face


def _quarter_back(points: Tensor, right: int) -> Tensor:
    return torch.stack([right - points[:, 1], points[:, 0]], dim=1)
