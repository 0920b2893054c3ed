"""The 112 crop: the fit against scikit-image's, the crop against its own template."""

import numpy as np
import pytest
import torch
from skimage.transform import SimilarityTransform, estimate_transform, warp
from torch import Tensor

from clcae.faces import (
    Face,
    MTCNNDetector,
    choose,
    fit_similarity,
    recognition_crop,
    recognition_quad,
)
from clcae.faces.similarity import TEMPLATE

TARGETS = np.array(TEMPLATE)


def reference(points: np.ndarray, targets: np.ndarray) -> SimilarityTransform:
    return estimate_transform("similarity", points, targets)


@pytest.mark.parametrize("seed", range(20))
def test_fit_is_umeyamas(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 9))
    points, targets = rng.normal(50, 30, (count, 2)), rng.normal(20, 60, (count, 2))
    if seed % 3 == 0:
        targets = points * [-1, 1] + rng.normal(0, 1, points.shape)  # mirrored
    ours = fit_similarity(torch.from_numpy(points), torch.from_numpy(targets))
    np.testing.assert_allclose(ours, reference(points, targets).params[:2], atol=1e-6)


def test_fit_refuses_what_has_no_answer() -> None:
    with pytest.raises(ValueError, match="1 points"):
        fit_similarity(torch.zeros(1, 2), torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"all lie at \[1.0, 1.0\]"):
        fit_similarity(torch.ones(3, 2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"\(5, 2\) and targets \(4, 2\)"):
        fit_similarity(torch.ones(5, 2), torch.zeros(4, 2))


def test_crop_is_scikit_images(photo: Tensor, face: Face) -> None:
    transform = reference(face.landmarks.numpy(), TARGETS)
    picture = photo.permute(1, 2, 0).numpy() + 1
    theirs = warp(picture, transform.inverse, output_shape=(112, 112), order=3) - 1
    ours = recognition_crop(photo, face.landmarks).permute(1, 2, 0).numpy()
    assert np.abs(ours - theirs).mean() * 127.5 < 1.5


def test_landmarks_lie_where_the_fit_brings_them(
    photo: Tensor, face: Face, detector: MTCNNDetector
) -> None:
    matrix = reference(face.landmarks.numpy(), TARGETS)
    expected = matrix(face.landmarks.numpy())
    assert np.abs(expected - TARGETS)[[0, 1, 3, 4]].max() < 6  # nobody has the mean face
    for size in (112, 224):
        crop = recognition_crop(photo, face.landmarks, size=size)
        assert crop.shape == (3, size, size)
        found = choose(detector.detect(crop), "largest")[0].landmarks
        places = (found + 0.5) * 112 / size - 0.5
        assert np.abs(places.numpy() - expected).max() < 3


def test_black_beyond_the_picture(photo: Tensor, face: Face) -> None:
    part = photo[:, 100:, :].contiguous()
    crop = recognition_crop(part, face.landmarks - torch.tensor([0, 100]))
    assert (crop[:, :40] == -1).all()
    assert crop[:, 70:].mean() > -0.5


def test_quad_of_the_template_is_the_whole_crop() -> None:
    quad = recognition_quad(torch.tensor(TEMPLATE))
    assert (
        quad - torch.tensor([[-0.5, -0.5], [-0.5, 111.5], [111.5, 111.5], [111.5, -0.5]])
    ).abs().max() < 1e-4
    with pytest.raises(ValueError, match="five finite points"):
        recognition_quad(torch.zeros(4, 2))
