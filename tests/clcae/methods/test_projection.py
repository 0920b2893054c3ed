"""The code optimised, as a method: what it finds, and the promises of every method."""

from pathlib import Path

import pytest
import torch

from clcae.methods.interface import Inversion
from clcae.methods.projection import Projection, project
from clcae.serialization import load, save
from clcae.stylegan2 import Generator, LatentSpace


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    generator = Generator(resolution=16, z_dim=8, w_dim=10, mapping_layers=2, channels=[8, 8, 6])
    generator.update_average(num_samples=500)
    return generator.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def images(generator: Generator) -> torch.Tensor:
    noise = torch.Generator().manual_seed(1)
    return generator.synthesize(generator.map(torch.randn(3, 8, generator=noise))).clamp(-1, 1)


def error(method: Projection, inversion: Inversion, images: torch.Tensor) -> float:
    return float((method.synthesize(inversion) - images).square().mean())


def test_it_finds_what_the_search_finds(generator: Generator, images: torch.Tensor) -> None:
    method = Projection(generator=generator, steps=30)
    assert (method.outputs, method.output) == (("Z", "Z+", "W", "W+"), "W+")
    for space in LatentSpace:
        inversion = method.with_output(space.value).invert(images)
        codes = project(generator, images, space=space, steps=30)
        expected = codes if codes.ndim == 3 else codes[:, None].expand(-1, 6, -1)
        assert inversion.space is space and torch.equal(inversion.codes, expected)


@pytest.mark.parametrize("space", LatentSpace)
def test_pictures_of_the_generator_are_found(generator: Generator, space: LatentSpace) -> None:
    images = generator.synthesize(
        generator.map(torch.randn(3, 8, generator=torch.Generator().manual_seed(1)))
    )
    errors = []
    for method in (
        Projection(generator=generator, steps=0, output="W"),
        Projection(generator=generator, steps=200, output=space.value),
    ):
        error = method.synthesize(method.invert(images)) - images
        errors.append(error.square().mean(dim=(1, 2, 3)))
    rest = 0.02 if space.is_mapped else 0.4  # from a random start some minima are local
    assert bool((errors[1] < rest * errors[0]).all())


def test_codes_of_z_start_alike_and_end_on_the_sphere(
    generator: Generator, images: torch.Tensor
) -> None:
    for space, rows in ((LatentSpace.Z, 1), (LatentSpace.Z_PLUS, 6)):
        start = project(generator, images, space=space, steps=0).reshape(3, rows, 8)
        assert torch.equal(start, start[:1].expand(3, -1, -1))
        found = project(generator, images, space=space, steps=10).reshape(3, rows, 8)
        assert not torch.equal(found, start)
        for codes in (start, found):
            torch.testing.assert_close(codes.square().mean(dim=-1), torch.ones(3, rows))


def test_more_steps_come_nearer_and_none_is_the_average(
    generator: Generator, images: torch.Tensor
) -> None:
    average = Projection(generator=generator, steps=0, output="W")
    found = average.invert(images)
    assert torch.equal(found.codes, generator.w_average.expand(3, 6, -1))
    errors = [error(average, found, images)]
    for steps in (10, 60):
        method = Projection(generator=generator, steps=steps)
        errors.append(error(method, method.invert(images), images))
    assert errors[0] > errors[1] > errors[2]


def test_gradients_are_found_where_nobody_else_wants_them(
    generator: Generator, images: torch.Tensor
) -> None:
    method = Projection(generator=generator, steps=5)
    expected = method.invert(images).codes
    with torch.inference_mode():
        again = images * 1.0
        assert torch.equal(method.invert(again).codes, expected)
    with torch.no_grad():
        assert torch.equal(method.invert(images).codes, expected)
    assert not expected.requires_grad and all(p.grad is None for p in generator.parameters())


def test_its_file_gives_it_back(generator: Generator, images: torch.Tensor, tmp_path: Path) -> None:
    method = Projection(generator=generator, steps=7, lr=0.2, output="W")
    save(method, tmp_path / "projection.safetensors", provenance={"command": "a test"})
    again = load(tmp_path / "projection.safetensors", expected=Projection)
    assert (again.steps, again.lr, again.output) == (7, 0.2, "W")
    assert torch.equal(again.invert(images).codes, method.invert(images).codes)


def test_bad_input(generator: Generator) -> None:
    with pytest.raises(ValueError, match="-1 steps"):
        Projection(generator=generator, steps=-1)
    with pytest.raises(ValueError, match="learning rate of 0"):
        Projection(generator=generator, lr=0)
    with pytest.raises(ValueError, match="output is 'F', Projection has Z, Z\\+, W, W\\+"):
        Projection(generator=generator, output="F")
    with pytest.raises(ValueError, match="makes 16x16"):
        Projection(generator=generator).invert(torch.zeros(1, 3, 32, 32))
