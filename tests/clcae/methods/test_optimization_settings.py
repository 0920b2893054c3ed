"""Optimization's native file, and the settings that it refuses."""

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
        ({"encoder": small_optimization()}, "encoder is of a generator with rows, z and w of"),
    ],
)
def test_bad_settings(generator: Generator, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Optimization(generator=generator, **settings)


def test_a_generator_without_the_layer_has_no_feature(images: Tensor) -> None:
    torch.manual_seed(0)
    small = Generator(resolution=8, z_dim=4, w_dim=4, mapping_layers=1, channels=[3, 2])
    assert Optimization(generator=small).outputs == tuple(LatentSpace)
    with pytest.raises(ValueError, match="makes 8x8"):
        Optimization(generator=small).invert(images)
