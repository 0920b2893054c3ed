"""Faces of photographs that lie on their side or head, and detections that are no faces."""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from clcae.faces import Face, MTCNNDetector, crop_faces, find_faces
from clcae.faces.crop import crop_quad, ffhq_quad, quad_side
from clcae.images import from_pil, to_pil


class Counting:
    """A detector that counts its searches."""

    def __init__(self, detector: MTCNNDetector) -> None:
        self.detector, self.searches = detector, 0

    def detect(self, image: Tensor) -> list[Face]:
        self.searches += 1
        return self.detector.detect(image)


@pytest.fixture
def wide(photo: Tensor) -> Tensor:
    return photo[:, :, :450]


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
@pytest.mark.parametrize("side", [256, 512, 1000])
def test_every_turn_gives_the_upright_face(
    wide: Tensor, detector: MTCNNDetector, turn: int, side: int
) -> None:
    size = (side, side * 450 // 512)
    picture = F.interpolate(wide[None], size=size, mode="bicubic", antialias=True)[0].clamp(-1, 1)
    ((_, upright),), _ = crop_faces(picture, "largest", size=64, detector=detector)
    counting = Counting(detector)
    turned = picture.rot90(turn, (1, 2))
    ((_, crop),), refused = crop_faces(turned, "largest", size=64, detector=counting)
    assert refused == []
    assert (crop.image - upright.image).abs().mean() * 127.5 < 1
    # The quad lies in the photograph as it is.
    assert (crop_quad(turned, crop.quad, 64) - crop.image).abs().max() < 1e-5
    assert quad_side(crop.quad) == pytest.approx(quad_side(upright.quad), rel=0.01)
    if turn == 0:
        assert counting.searches == 3  # no more than the second look takes
    points = crop.landmarks.round().long()
    for x, y in points.tolist():
        assert 0 <= x < turned.shape[-1] and 0 <= y < turned.shape[-2]


@pytest.mark.parametrize("degrees", [60, 75, 105, 120, 135, 150, -60, -75, -135])
def test_turns_between(photo: Tensor, detector: MTCNNDetector, degrees: int) -> None:
    def turned(by: int) -> Tensor:
        resampling, colour = Image.Resampling.BICUBIC, (90, 90, 90)
        return from_pil(to_pil(photo).rotate(by, resampling, expand=True, fillcolor=colour))

    (upright,) = find_faces(photo, "largest", detector=detector)
    (found,) = find_faces(turned(degrees), "largest", detector=detector)
    side = quad_side(ffhq_quad(upright.face.landmarks))
    assert quad_side(ffhq_quad(found.face.landmarks)) == pytest.approx(side, rel=0.03)

    def angle(face: Face) -> Tensor:
        quad = ffhq_quad(face.landmarks)
        along = quad[3] - quad[0]
        return torch.atan2(-along[1], along[0]).rad2deg()

    difference = (angle(found.face) - angle(upright.face) - degrees + 180) % 360 - 180
    assert abs(difference) < 3


class Scripted:
    """A detector with an answer for each search, and none after that."""

    def __init__(self, answers: list[list[Face]]) -> None:
        self.answers: Iterator[list[Face]] = iter(answers)

    def detect(self, image: Tensor) -> list[Face]:
        return next(self.answers, [])


def test_what_no_turn_confirms_is_refused(photo: Tensor, detector: MTCNNDetector) -> None:
    first = detector.detect(photo)
    crops, (reason,) = crop_faces(photo, "largest", size=64, detector=Scripted([first]))
    assert crops == [] and "a doubtful face" in reason and "turning it may help" in reason


def test_no_face_in_any_turn(detector: MTCNNDetector) -> None:
    counting = Counting(detector)
    with pytest.raises(ValueError, match=r"no face found; .*turning it may help"):
        crop_faces(torch.zeros(3, 200, 200), "largest", size=64, detector=counting)
    assert counting.searches == 4


def test_a_false_face_that_is_larger_does_not_win(photo: Tensor, detector: MTCNNDetector) -> None:
    (face,) = detector.detect(photo)
    false = Face(face.landmarks + 180, torch.tensor([150.0, 150, 500, 500]), 0.95)
    answers = [[false, face]]

    class First(Counting):
        def detect(self, image: Tensor) -> list[Face]:
            self.searches += 1
            return answers[0] if self.searches == 1 else self.detector.detect(image)

    (found,) = find_faces(photo, "largest", detector=First(detector))
    assert (found.face.landmarks - face.landmarks).abs().max() < 10 and found.count == 2
    sightings = find_faces(photo, "all", detector=First(detector))
    assert [sighting.certainty > 0.9 for sighting in sightings] in ([True, False], [False, True])
