"""MTCNN on real pixels: where it finds a face, however the picture is turned and scaled."""

import sys

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from clcae.faces import (
    Face,
    MTCNNDetector,
    align_face,
    choose,
    crop_quad,
    ffhq_quad,
    is_aligned,
    look_again,
    mtcnn_detector,
)
from clcae.faces.crop import quad_side
from clcae.images import from_pil, to_pil


def resized(image: Tensor, height: int, width: int) -> Tensor:
    size = (height, width)
    return F.interpolate(image[None], size=size, mode="bicubic", antialias=True)[0].clamp(-1, 1)


def seen_again(image: Tensor, detector: MTCNNDetector) -> Face:
    return look_again(image, choose(detector.detect(image), "largest")[0], detector=detector)


def test_landmarks_lie_on_the_face(face: Face) -> None:
    expected = torch.tensor([[205, 102], [247, 104], [224, 129], [202, 139], [245, 142]])
    assert (face.landmarks - expected).abs().max() < 5  # read off the picture
    assert face.score > 0.99
    left, top, right, bottom = face.box.tolist()
    assert left < 200 and right > 250 and top < 90 and bottom > 150


@pytest.mark.parametrize("size", [(1, 1), (19, 40), (20, 20), (15, 3000), (64, 64)])
def test_pictures_without_room_for_a_face(detector: MTCNNDetector, size: tuple[int, int]) -> None:
    rng = torch.Generator().manual_seed(0)
    assert detector.detect(torch.rand(3, *size, generator=rng) * 2 - 1) == []


def test_a_small_face_in_a_large_picture_is_found_in_the_second_search(photo: Tensor) -> None:
    detector = mtcnn_detector(longest_side=256)
    picture = torch.zeros(3, 600, 1000)
    picture[:, 200:400, 500:700] = resized(photo, 200, 200)  # its face is 34 pixels wide
    found = detector.detect(picture)
    assert len(found) == 1
    expected = torch.tensor([500 + 205 * 200 / 512, 200 + 102 * 200 / 512])
    assert (found[0].landmarks[0] - expected).norm() < 3


@pytest.mark.parametrize("factor", [0.5, 4])
def test_scale_does_not_matter(
    photo: Tensor, face: Face, detector: MTCNNDetector, factor: float
) -> None:
    side = round(512 * factor)
    again = seen_again(resized(photo, side, side), detector)
    quad = ffhq_quad(look_again(photo, face, detector=detector).landmarks)
    off = (ffhq_quad((again.landmarks + 0.5) / factor - 0.5) - quad).norm(dim=1)
    assert off.max() < 0.03 * quad_side(quad)


@pytest.mark.parametrize("degrees", [30, -30, -45])
def test_a_turned_photograph_gives_the_same_crop(
    photo: Tensor, face: Face, detector: MTCNNDetector, degrees: int
) -> None:
    picture = to_pil(photo).rotate(degrees, Image.Resampling.BICUBIC, expand=True)
    turned = from_pil(picture)
    crop = align_face(turned, seen_again(turned, detector), size=256)
    upright = align_face(photo, look_again(photo, face, detector=detector), size=256)
    assert abs(quad_side(crop.quad) / quad_side(upright.quad) - 1) < 0.02
    along = crop.quad[3] - crop.quad[0]
    tilt = torch.atan2(-along[1], along[0]).rad2deg()
    along = upright.quad[3] - upright.quad[0]
    assert abs(tilt - torch.atan2(-along[1], along[0]).rad2deg() - degrees) < 2
    # Smoothed, since a crop that is off by one pixel differs in every strand of hair.
    smooth = [F.avg_pool2d(c.image[:, 8:-8, 8:-8], 8) for c in (crop, upright)]
    assert (smooth[0] - smooth[1]).abs().mean() * 127.5 < 5


@pytest.mark.parametrize("size", [64, 256, 1024])
def test_an_aligned_picture_is_recognised(
    photo: Tensor, face: Face, detector: MTCNNDetector, size: int
) -> None:
    crop = crop_quad(photo, ffhq_quad(face.landmarks), size)
    found = choose(detector.detect(crop), "largest")[0]
    assert is_aligned(ffhq_quad(found.landmarks), size, size)
    again = align_face(crop, look_again(crop, found, detector=detector), size=size)
    assert again.was_aligned and torch.equal(again.image, crop)
    assert align_face(crop, found, size=32).image.shape == (3, 32, 32)


def test_a_photograph_is_not_taken_for_aligned(photo: Tensor, face: Face) -> None:
    crop = align_face(photo, face, size=128)
    assert not crop.was_aligned
    assert torch.equal(crop.image, crop_quad(photo, ffhq_quad(face.landmarks), 128))


def test_a_second_look_that_sees_nothing_keeps_the_first(photo: Tensor, face: Face) -> None:
    class Blind:
        def detect(self, image: Tensor) -> list[Face]:
            return []

    assert look_again(photo, face, detector=Blind()) is face


def test_building_leaves_the_random_state_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    mtcnn_detector()
    assert torch.equal(torch.rand(2), expected)


def test_refusals(photo: Tensor, detector: MTCNNDetector, monkeypatch) -> None:
    with pytest.raises(ValueError, match=r"\(512, 512\)"):
        detector.detect(photo[0])
    with pytest.raises(ValueError, match="4 pixels"):
        mtcnn_detector(smallest_face=4)
    monkeypatch.setitem(sys.modules, "facenet_pytorch", None)  # as where it is not installed
    with pytest.raises(ValueError, match=r"pip install -e '\.\[face\]'"):
        mtcnn_detector()
