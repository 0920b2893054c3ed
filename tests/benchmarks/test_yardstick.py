"""The textbook synthesis against the official code's outputs, and ours against the textbook."""

import copy

import goldens
import official
import pytest
import torch
from small_methods import small_clcae
from torch import Tensor

import clcae
from benchmarks.yardstick import synthesis
from benchmarks.yardstick.synthesis import TextbookSynthesis
from benchmarks.yardstick.training_step import PlainStep
from clcae.pretrained import rosinality
from clcae.stylegan2 import Generator, Layer
from training.optim import Ranger

FILTERS = ["filtered", "filtered_by_groups"]
TOLERANCE = 1e-4


def textbook_of(generator: Generator, fir: str = "filtered") -> TextbookSynthesis:
    return TextbookSynthesis.of(generator, fir=getattr(synthesis, fir))


def codes_for(generator: Generator, count: int) -> Tensor:
    torch.manual_seed(3)
    return generator.map(torch.randn(count, generator.num_codes, generator.z_dim))


def drawn(resolution: int) -> Generator:
    """A generator with noise and biases that matter, and half as wide as usual where it is slow."""
    torch.manual_seed(2)
    generator = Generator(resolution=resolution, channel_base=16384).requires_grad_(False)
    for layer in generator.synthesis.layers:
        layer.noise_strength.fill_(0.3)
        layer.bias.normal_()
    return generator


def test_the_textbook_gives_the_official_pictures() -> None:
    golden = goldens.Golden("rosinality_64", 5e-5)  # tests/fixtures/README.md
    average = goldens.checkpoint("rosinality_64")["latent_avg"]
    state = goldens.state("rosinality_64", "g_ema")
    generator = rosinality.generator_from_state(state, average).requires_grad_(False)
    textbook, codes = textbook_of(generator), golden.latent("wplus")
    golden.check("image_wplus", textbook(codes))
    for index in range(generator.num_layers):
        golden.check(f"feature{index + 1}", textbook.features(codes, index))
    sides = [Layer(index).resolution for index in range(generator.num_layers)]
    maps = [official.latent(f"noise{i}", [1, 1, side, side], 1) for i, side in enumerate(sides)]
    golden.check("image_noise", textbook(codes, noise=maps))


@pytest.mark.parametrize("fir", FILTERS)
@pytest.mark.parametrize("batch", [1, 3])
def test_ours_is_the_textbook_at_64(fir: str, batch: int) -> None:
    generator = clcae.load_generator("portraits")
    codes = codes_for(generator, batch)
    picture = textbook_of(generator, fir)(codes)
    assert picture.shape == (batch, 3, 64, 64) and picture.std() > 0.1
    torch.testing.assert_close(generator.synthesize(codes), picture, atol=TOLERANCE, rtol=0.0)
    row = textbook_of(generator, fir)(codes[:, 0])
    torch.testing.assert_close(generator.synthesize(codes[:, 0]), row, atol=TOLERANCE, rtol=0.0)


def test_ours_is_the_textbook_at_256() -> None:
    generator = drawn(256)
    codes = codes_for(generator, 1)
    picture, ours = textbook_of(generator)(codes), generator.synthesize(codes)
    scale = picture.std()  # of random weights it is not 1
    torch.testing.assert_close(ours / scale, picture / scale, atol=TOLERANCE, rtol=0.0)


def test_gradients_are_the_textbook_s() -> None:
    generator = clcae.load_generator("portraits")
    textbook = textbook_of(generator).requires_grad_(True)
    trained = copy.deepcopy(generator).requires_grad_(True)
    codes = codes_for(generator, 2)
    found = {}
    for name, network, call in (
        ("ours", trained.synthesis, trained.synthesize),
        ("textbook", textbook, textbook),
    ):
        given = codes.clone().requires_grad_(True)
        call(given).square().mean().backward()
        found[name] = {key: value.grad for key, value in network.named_parameters()}
        found[name]["codes"] = given.grad
    assert found["ours"].keys() == found["textbook"].keys()
    for key, gradient in found["textbook"].items():
        scale = gradient.abs().max()
        assert scale > 0, key
        torch.testing.assert_close(
            found["ours"][key] / scale, gradient / scale, atol=TOLERANCE, rtol=0.0, msg=key
        )


def test_a_replaced_feature_enters_behind_its_layer() -> None:
    generator = clcae.load_generator("portraits")
    codes, layer = codes_for(generator, 2), Layer.parse("16x16/1")
    feature = torch.randn(2, *generator.feature_shape(layer))
    picture = textbook_of(generator)(codes, replaced=(layer.index, feature))
    ours = generator.synthesize(codes, at=(layer, lambda own: feature))
    torch.testing.assert_close(ours, picture, atol=TOLERANCE, rtol=TOLERANCE)


def test_the_plain_step_learns_what_ours_does() -> None:
    """Loss and gradients of the encoder, and where an optimizer takes it."""
    method = small_clcae()
    textbook = textbook_of(method.generator)
    images = torch.rand(2, 3, *method.image_shape) * 2 - 1
    parameters = {
        f"{part}.{name}": parameter
        for part, module in method.encoder_modules().items()
        for name, parameter in module.train().requires_grad_(True).named_parameters()
    }
    optimizer = Ranger(parameters.values(), lr=1e-3)
    step = PlainStep(method=method, textbook=textbook, optimizer=optimizer, noise="const")
    plain = step.loss(images)
    plain.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in parameters.items()}
    assert all(weight.grad is not None for weight in textbook.layers.parameters())
    optimizer.zero_grad()
    pictures, _, _ = method.pictures(method.encode(images), noise="const")
    ours = sum((picture - images).square().mean() for picture in pictures.values())
    torch.testing.assert_close(ours, plain, atol=0.0, rtol=1e-5)
    ours.backward()
    scale = max(gradient.abs().max() for gradient in gradients.values())
    for name, parameter in parameters.items():
        torch.testing.assert_close(
            parameter.grad / scale, gradients[name] / scale, atol=TOLERANCE, rtol=0.0, msg=name
        )
    optimizer.zero_grad()
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    assert step.run(images) == pytest.approx(plain.item(), rel=1e-5)
    assert any(not torch.equal(before[name], parameters[name]) for name in before)
    assert all(parameter.grad is None for parameter in parameters.values())
