"""Projection finds what the generator can make, and treats every picture by itself."""

import pytest
import torch

from clcae.methods.optimization import project, squared_error
from clcae.stylegan2 import Generator, LatentSpace


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    generator = Generator(resolution=16, z_dim=8, w_dim=10, mapping_layers=2, channels=[8, 8, 6])
    generator.update_average(num_samples=500)
    return generator.requires_grad_(False)


@pytest.mark.parametrize("space", [LatentSpace.W, LatentSpace.W_PLUS])
def test_pictures_of_the_generator_are_found(generator: Generator, space: LatentSpace) -> None:
    w = generator.map(torch.randn(3, 8))
    images = generator.synthesize(w)
    codes = project(generator, images, space=space, steps=200)
    assert codes.shape == ((3, 10) if space is LatentSpace.W else (3, 6, 10))
    start = squared_error(generator.synthesize(generator.w_average.expand(3, -1)), images)
    found = squared_error(generator.synthesize(codes), images)
    assert bool((found < 0.02 * start).all())


def test_pictures_do_not_interact(generator: Generator) -> None:
    images = generator.synthesize(generator.map(torch.randn(2, 8)))
    together = project(generator, images, space=LatentSpace.W, steps=20)
    alone = project(generator, images[1:], space=LatentSpace.W, steps=20)
    torch.testing.assert_close(together[1:], alone, rtol=1e-3, atol=1e-3)


def test_bad_input(generator: Generator) -> None:
    with pytest.raises(ValueError, match="Z"):
        project(generator, torch.zeros(1, 3, 16, 16), space=LatentSpace.Z)
    with pytest.raises(ValueError, match="16x16"):
        project(generator, torch.zeros(1, 3, 32, 32), space=LatentSpace.W)
