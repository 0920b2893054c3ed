"""Losses of inversion by optimisation, against slow statements in numpy."""

import numpy as np
import pytest
import torch
from torch import Tensor

from clcae.losses.optimization import (
    noise_errors,
    normality_errors,
    perceptual_features,
    squared_errors,
)
from clcae.stylegan2 import Generator
from clcae.stylegan2.normal_space import NormalSpace


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.RandomState(seed).randn(*shape))


def test_squared_errors() -> None:
    values, targets = drawn(3, 2, 4, 4), drawn(3, 2, 4, 4, seed=1)
    found = squared_errors(values, targets).numpy()
    for row in range(3):
        differences = [
            (float(a) - float(b)) ** 2
            for a, b in zip(values[row].flatten(), targets[row].flatten(), strict=True)
        ]
        assert found[row] == pytest.approx(sum(differences) / len(differences))


def autocorrelation(plane: np.ndarray) -> float:
    total, side = 0.0, len(plane)
    for shift in ((0, 1), (1, 0)):
        products = [
            plane[y, x] * plane[(y - shift[0]) % side, (x - shift[1]) % side]
            for y in range(side)
            for x in range(side)
        ]
        total += float(np.mean(products)) ** 2
    return total


def test_noise_errors_over_the_pyramid() -> None:
    maps = [drawn(2, 1, side, side, seed=side) for side in (4, 8, 32)]
    found = noise_errors(maps).numpy()
    for row in range(2):
        expected = 0.0
        for level in maps:
            plane = level[row, 0].numpy()
            while True:
                expected += autocorrelation(plane)
                if len(plane) <= 8:
                    break
                plane = (
                    plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2]
                ) / 4
        assert found[row] == pytest.approx(expected)
    smooth = torch.ones(1, 1, 16, 16)
    assert float(noise_errors([smooth])) == pytest.approx(4.0)


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    return Generator(resolution=8, z_dim=16, w_dim=6, mapping_layers=3, channels=[3, 2]).eval()


def test_samples_are_standard_normal_in_p_n_plus(generator: Generator) -> None:
    space = NormalSpace.of(generator, num_samples=20_000)
    with torch.no_grad():
        w = generator.map(torch.randn(20_000, 16, generator=torch.Generator().manual_seed(9)))
    found = space.whiten(w).numpy()
    np.testing.assert_allclose(found.mean(axis=0), 0.0, atol=0.05)
    np.testing.assert_allclose(np.cov(found.T), np.eye(6), atol=0.1)


def test_the_whitening_is_that_of_the_paper(generator: Generator) -> None:
    """The leaky ReLU undone, the mean subtracted, coordinates along principal components."""
    rng = torch.Generator().manual_seed(0)  # the samples that it draws
    with torch.no_grad():
        samples = generator.map(torch.randn(5000, 16, generator=rng)).double().numpy()
    space = NormalSpace.of(generator, num_samples=5000)
    p = np.where(samples < 0, 5 * samples, samples)
    values, vectors = np.linalg.eigh(np.cov(p.T, bias=True))
    w = drawn(2, 4, 6, seed=3)
    whitened = (np.where(w < 0, 5 * w, w) - p.mean(axis=0)) @ vectors / np.sqrt(values)
    errors = normality_errors(w.float(), space).numpy()
    np.testing.assert_allclose(errors, (whitened**2).mean(axis=(1, 2)), rtol=1e-3)
    # Signs of eigenvectors are free, so coordinates agree in absolute value alone.
    np.testing.assert_allclose(
        np.abs(space.whiten(w.float()).numpy()), np.abs(whitened), rtol=2e-2, atol=2e-2
    )


def test_a_generator_of_a_narrow_mapping_has_finite_coordinates() -> None:
    torch.manual_seed(0)
    narrow = Generator(
        resolution=8, z_dim=4, w_dim=6, mapping_layers=2, mapping_dim=3, channels=[3, 2]
    )
    space = NormalSpace.of(narrow, num_samples=500)
    assert bool(space.whiten(torch.randn(5, 6)).isfinite().all())
    with pytest.raises(ValueError, match="num_samples is 6, expected more than the 6 of w"):
        NormalSpace.of(narrow, num_samples=6)


class Same:
    def features(self, images: Tensor) -> list[Tensor]:
        return [images]

    def distance(self, features: list[Tensor], others: list[Tensor]) -> Tensor:
        return squared_errors(features[0], others[0])


def test_pictures_are_scaled_for_the_network_and_not_clamped() -> None:
    images = 3 * drawn(2, 3, 8, 8).float()
    (same,) = perceptual_features(images, Same(), None)
    assert same is images
    (small,) = perceptual_features(images, Same(), 4)
    assert small.shape == (2, 3, 4, 4) and float(small.abs().max()) > 1.0
    constant = torch.full((1, 3, 8, 8), 1.5)
    torch.testing.assert_close(perceptual_features(constant, Same(), 4)[0], constant[..., :4, :4])
