"""Optimization's native file, and the settings that it refuses."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small_methods import Halves, small_optimization, tiny_generator, tiny_images, with_feature
from torch import Tensor

from clcae.encoders.base_code import BaseCodeEncoder
from clcae.methods.optimization import Optimization
from clcae.serialization import load, save
from clcae.stylegan2 import Generator, LatentSpace


@pytest.fixture(scope="module")
def generator() -> Generator:
    return tiny_generator()


@pytest.fixture(scope="module")
def images(generator: Generator) -> Tensor:
    return tiny_images(generator)


def test_its_file_gives_it_back(generator: Generator, images: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(4)
    method = with_feature(
        generator,
        steps=3,
        weights={"pixel": 1.0, "feature": 2.0, "code": 1.0},
        encoder=Optimization(generator=generator, steps=2, output="Z+"),
        base_code=BaseCodeEncoder(image_size=16, widths=[5], out_channels=8),
        truncation=0.7,
        truncated_rows=4,
        outputs=["Z+", "F/Z+"],
    ).eval()
    path = tmp_path / "optimization.safetensors"
    save(method, path, provenance={"command": "a test"})
    again = load(path, expected=Optimization)
    assert again.settings["weights"] == method.weights and again.outputs == ("Z+", "F/Z+")
    first, second = method.invert(images), again.invert(images)
    assert torch.equal(first.codes, second.codes)
    assert torch.equal(again.synthesize(second), method.synthesize(first))
    fast = method.for_inference()
    torch.testing.assert_close(fast.invert(images).codes, first.codes, rtol=0, atol=1e-3)


def test_a_judge_without_a_registered_class_is_named(generator: Generator, tmp_path: Path) -> None:
    method = Optimization(generator=generator, perceptual=Halves(), weights={"perceptual": 1.0})
    with pytest.raises(ValueError, match="Halves is not registered"):
        save(method, tmp_path / "a.safetensors", provenance={})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": -1}, "-1 steps"),
        ({"lr": 0}, "learning rate of 0"),
        ({"feature_lr": -1.0}, "learning rate of 0.1 and -1.0"),
        ({"output": "F"}, r"output is 'F', Optimization has Z, Z\+, W, W\+"),
        ({"output": "F/Z+", "outputs": ["Z"]}, r"output is 'F/Z\+', Optimization has Z"),
        ({"outputs": ["S"]}, "outputs has 'S'"),
        ({"layer": "16x16/1"}, "layer is 16x16/1, the generator's last"),
        ({"layer": "32x32/0"}, "layer 32x32/0 is not in this generator"),
        ({"schedule": "cosine"}, "schedule is 'cosine', expected one of ramp, constant"),
        ({"start": "zero"}, "start is 'zero', expected one of mean, random, encoder"),
        ({"noise": "const"}, "noise is 'const', expected one of fixed, free"),
        ({"start": "encoder"}, "start is 'encoder', which needs encoder"),
        ({"weights": {"pixel": 1.0, "code": 2.0}}, "weights.code is 2.0, which needs encoder"),
        ({"weights": {"perceptual": 2.0}}, "weights.perceptual is 2.0, which needs perceptual"),
        ({"weights": {"pixels": 1.0}}, "weights are of pixels: expected some of pixel, perceptual"),
        ({"weights": {"feature": 1.0}}, "expected one of pixel or perceptual"),
        ({"patience": 0}, "patience is 0, expected 1 or more"),
        ({"at_once": 0}, "at_once is 0, expected 1 or more"),
        ({"encoder": Halves()}, "encoder is a Halves, expected InversionMethod"),
        ({"base_code": small_optimization()}, "base_code is a Optimization, expected BaseCodeEnc"),
        ({"lr": math.nan}, "learning rate of nan"),
        ({"lr": 1e300}, "learning rate of 1e.300: expected 0 up, above 0 to 1e.06"),
        ({"feature_lr": math.nan}, "learning rate of 0.1 and nan"),
        ({"weights": {"pixel": -1.0}}, "weights.pixel is -1.0: expected a number of 0 or more"),
        ({"weights": {"pixel": math.nan}}, "weights.pixel is nan"),
        ({"truncation": math.nan}, "truncation is nan"),
        ({"code_noise": math.inf}, "code_noise is inf"),
        ({"least_gain": math.nan}, "least_gain is nan"),
        ({"perceptual_size": 0}, "perceptual_size is 0, expected 1 or more"),
        ({"encoder": small_optimization()}, "encoder is of a generator with rows, z and w of"),
    ],
)
def test_bad_settings(generator: Generator, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Optimization(generator=generator, **settings)


def test_pictures_of_another_shape_and_none(generator: Generator, images: Tensor) -> None:
    method = Optimization(generator=generator, steps=1)
    with pytest.raises(ValueError, match=r"shape \(3, 1, 16, 16\), expected \[N, 3, 16"):
        method.invert(images[:, :1])
    assert method.invert(images[:0]).codes.shape == (0, 6, 10)


def test_a_search_that_diverges_says_so(generator: Generator, images: Tensor) -> None:
    method = Optimization(generator=generator, steps=2, schedule="constant")
    with pytest.raises(ValueError, match=r"the search in W\+ diverged .* a smaller one"):
        method.invert(images * torch.nan)


def test_an_encoder_of_another_generator_is_refused(generator: Generator, images: Tensor) -> None:
    tuned, other = tiny_generator(), tiny_generator()
    tuned.synthesis.const.data.add_(1.0)
    for layer in other.mapping.layers:
        torch.nn.init.normal_(layer.weight, std=100.0)  # learning rates are a hundredth
    for network, is_same in ((tuned, True), (other, False)):
        encoder = Optimization(generator=network, steps=0, output="W")
        method = Optimization(generator=generator, steps=0, start="encoder", encoder=encoder)
        if is_same:
            method.invert(images)
            continue
        with pytest.raises(ValueError, match="encoder is of another generator"):
            method.invert(images)


def test_the_normal_space_is_the_generators_own(generator: Generator) -> None:
    method = Optimization(generator=generator, normal_samples=100)
    other = tiny_generator()
    other.mapping.layers[0].weight.data.mul_(2.0)
    mean = method.normal_space().mean
    assert not torch.equal(method.with_generator(other).normal_space().mean, mean)
    assert torch.equal(method.normal_space().mean, mean)


def test_a_generator_without_the_layer_has_no_feature(images: Tensor) -> None:
    torch.manual_seed(0)
    small = Generator(resolution=8, z_dim=4, w_dim=4, mapping_layers=1, channels=[3, 2])
    assert Optimization(generator=small).outputs == tuple(LatentSpace)
    with pytest.raises(ValueError, match="makes 8x8"):
        Optimization(generator=small).invert(images)
