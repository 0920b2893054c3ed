"""The Frechet distance against the matrix square root of scipy."""

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor

from clcae.metrics.frechet import FrechetDistance, frechet_distance
from clcae.metrics.moments import Moments


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def moments(vectors: Tensor) -> Moments:
    result = Moments(dimension=vectors.shape[1])
    result.update(vectors)
    return result


def reference(first: Tensor, second: Tensor) -> float:
    a, b = first.double().numpy(), second.double().numpy()
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(cov_a @ cov_b).real
    means = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()
    return float(means + np.trace(cov_a + cov_b - 2 * root))


def metric(dimension: int = 12) -> FrechetDistance:
    return FrechetDistance(
        features=lambda images: images.flatten(1), features_name="pixels", dimension=dimension
    )


@pytest.mark.parametrize("dimension", [2, 16, 64])
def test_agrees_with_scipy(dimension: int) -> None:
    first = torch.randn(300, dimension) @ torch.randn(dimension, dimension)
    second = torch.randn(200, dimension) @ torch.randn(dimension, dimension) + 0.5
    expected = reference(first, second)
    assert frechet_distance(moments(first), moments(second)) == pytest.approx(expected, rel=1e-7)
    assert frechet_distance(moments(second), moments(first)) == pytest.approx(expected, rel=1e-7)


def test_diagonal_covariances_have_a_closed_form() -> None:
    first, second = Moments(dimension=3), Moments(dimension=3)
    first.count = second.count = 2
    first.scatter, second.scatter = torch.diag(torch.tensor([1.0, 4, 0])), torch.eye(3) * 9
    first.scatter, second.scatter = first.scatter.double(), second.scatter.double()
    second.mean = torch.tensor([0.0, 0, 2]).double()
    # sum of squared differences of means (4) and of standard deviations (2^2 + 1^2 + 3^2)
    assert frechet_distance(first, second) == pytest.approx(18, rel=1e-12)


def test_fewer_images_than_dimensions() -> None:
    first, second = torch.randn(20, 64), torch.randn(15, 64) + 1
    # Roots of rounded zeros leave scipy 1e-6 away on singular matrices.
    ours = frechet_distance(moments(first), moments(second))
    assert ours == pytest.approx(reference(first, second), rel=1e-5)
    assert frechet_distance(moments(first), moments(first)) == pytest.approx(0, abs=1e-6)


def test_merge_equals_whole() -> None:
    outputs, targets = torch.rand(2, 40, 3, 2, 2).unbind()
    whole, first, second = metric(), metric(), metric()
    assert whole.update(outputs, targets).tolist() == [True] * 40
    first.update(outputs[:7], targets[:7])
    second.update_outputs(outputs[7:])
    second.update_targets(targets[7:20])
    second.update_targets(targets[20:])
    first.merge(second)
    assert first.num_counted == whole.num_counted == 40
    assert first.compute() == pytest.approx(whole.compute(), rel=1e-12)
    assert whole.compute() == pytest.approx(
        reference(outputs.flatten(1), targets.flatten(1)), rel=1e-7
    )


def test_refusals() -> None:
    with pytest.raises(ValueError, match="2 and 3 dimensions"):
        frechet_distance(moments(torch.rand(4, 2)), moments(torch.rand(4, 3)))
    single = metric()
    single.update(torch.rand(1, 3, 2, 2), torch.rand(1, 3, 2, 2))
    with pytest.raises(ValueError, match="needs two or more"):
        single.compute()
