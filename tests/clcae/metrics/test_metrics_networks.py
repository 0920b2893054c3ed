"""Metrics through a network: identity and perceptual distance, with small stand-ins for it."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine
from torch import Tensor

from clcae.metrics.identity import IdentitySimilarity, cosine_similarity
from clcae.metrics.perceptual import PerceptualDistance


def embedder(images: Tensor) -> Tensor:
    """Pixel embedding that finds no face in black images."""
    embeddings = images.flatten(1) + 0.3
    return torch.where((images == -1).all(dim=(1, 2, 3))[:, None], torch.nan, embeddings)


def identity() -> IdentitySimilarity:
    return IdentitySimilarity(embedder=embedder, embedder_name="pixels")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_cosine_agrees_with_scipy() -> None:
    first, second = torch.randn(2, 5, 16).unbind()
    expected = [1 - cosine(a, b) for a, b in zip(first.double(), second.double(), strict=True)]
    np.testing.assert_allclose(cosine_similarity(first, second * 8), expected, rtol=1e-9)
    assert cosine_similarity(first, first).max() <= 1


def test_embedding_without_direction_is_nan() -> None:
    first = torch.tensor([[0.0, 0.0], [1.0, torch.nan], [1e-20, 0.0]])
    assert cosine_similarity(first, torch.ones(3, 2)).isnan().tolist() == [True, True, False]
    with pytest.raises(ValueError, match=r"expected one \[N, D\]"):
        cosine_similarity(first, torch.ones(3, 4))


def test_images_without_a_face_do_not_count_and_are_told() -> None:
    images = torch.rand(4, 3, 4, 4)
    targets = images.clone()
    targets[2] = -1
    metric = identity()
    assert metric.update(images, targets).tolist() == [True, True, False, True]
    assert metric.num_counted == 3
    assert metric.compute() == pytest.approx(1)


def test_identity_merge_equals_whole() -> None:
    outputs, targets = torch.rand(2, 7, 3, 4, 4).unbind()
    outputs[3] = -1
    whole, first, second = identity(), identity(), identity()
    whole.update(outputs, targets)
    first.update(outputs[:4], targets[:4])
    second.update(outputs[4:], targets[4:])
    first.merge_state(second.state())
    assert first.num_counted == whole.num_counted == 6
    assert first.compute() == pytest.approx(whole.compute(), rel=1e-12)


def test_perceptual_distance_is_the_mean_of_the_distances() -> None:
    outputs, targets = torch.rand(2, 5, 3, 4, 4).unbind()

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().mean(dim=(1, 2, 3), keepdim=True)

    metric = PerceptualDistance(distance=distance, distance_name="mean absolute difference")
    metric.update(outputs[:2], targets[:2])
    metric.update(outputs[2:], targets[2:])
    expected = np.abs(outputs.numpy() - targets.numpy()).mean()
    assert metric.compute() == pytest.approx(expected, rel=1e-5)
    assert metric.protocol["network"] == "mean absolute difference"
    assert metric.direction == "lower"


@pytest.mark.parametrize("value", [torch.zeros(1), torch.full((2,), torch.nan)])
def test_perceptual_distance_refuses_what_is_no_distance(value: Tensor) -> None:
    metric = PerceptualDistance(distance=lambda a, b: value, distance_name="faulty")
    with pytest.raises(ValueError, match=r"faulty gave .* for 2 images"):
        metric.update(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"expected \[-1, 1\]"):
        metric.update(torch.full((2, 3, 4, 4), 255.0), torch.zeros(2, 3, 4, 4))
