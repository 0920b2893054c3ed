"""The generator's interface at unusual sizes and widths."""

import pytest
import torch

from clcae.stylegan2 import Discriminator, Generator, LatentSpace, Layer, truncate
from clcae.stylegan2.discriminator import append_minibatch_deviation
from clcae.stylegan2.generator import style_mixing


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    generator = Generator(
        resolution=32, z_dim=12, w_dim=20, mapping_layers=2, channels=[9, 8, 7, 5]
    )
    for layer in generator.synthesis.layers:
        torch.nn.init.constant_(layer.noise_strength, 0.3)
    generator.update_average(num_samples=1000)
    return generator.requires_grad_(False)


def test_any_width_and_resolution(generator: Generator) -> None:
    w = generator.map(torch.randn(3, 12))
    assert w.shape == (3, 20)
    assert (generator.num_layers, generator.num_codes) == (7, 8)
    assert generator.synthesize(w).shape == (3, 3, 32, 32)
    rows = generator.map(torch.randn(3, 8, 12))
    assert rows.shape == (3, 8, 20)
    assert generator.synthesize(rows).shape == (3, 3, 32, 32)


def test_w_equals_w_plus_of_equal_rows(generator: Generator) -> None:
    w = generator.map(torch.randn(2, 12))
    rows = w[:, None].expand(-1, generator.num_codes, -1)
    assert torch.equal(generator.synthesize(w), generator.synthesize(rows))


def test_halting_and_finishing_is_synthesis(generator: Generator) -> None:
    codes = generator.map(torch.randn(2, 8, 12))
    whole = generator.synthesize(codes)
    for index in range(generator.num_layers):
        layer = Layer(index)
        prefix = generator.begin(codes, layer)
        assert prefix.feature.shape[1:] == generator.feature_shape(layer)
        assert torch.equal(generator.finish(prefix, codes), whole)
        assert torch.equal(generator.features(codes, layer), prefix.feature)


def test_rows_after_a_layer_do_not_reach_its_feature(generator: Generator) -> None:
    codes = generator.map(torch.randn(1, 8, 12))
    layer = generator.layer("16x16/1")
    changed = codes.clone()
    changed[:, layer.index + 1 :] += 1.0
    assert torch.equal(generator.features(codes, layer), generator.features(changed, layer))
    changed[:, layer.index] += 1.0
    assert not torch.equal(generator.features(codes, layer), generator.features(changed, layer))


def test_a_changed_feature_and_a_dropped_skip(generator: Generator) -> None:
    codes = generator.map(torch.randn(1, 12))
    layer = generator.layer("8x8/1")
    same = generator.synthesize(codes, at=(layer, lambda feature: feature))
    assert torch.equal(same, generator.synthesize(codes))
    zero = generator.synthesize(codes, at=(layer, torch.zeros_like))
    dropped = generator.synthesize(codes, at=(layer, torch.zeros_like), keep_skip=False)
    assert not torch.allclose(zero, dropped)


def test_noise_modes(generator: Generator) -> None:
    codes = generator.map(torch.randn(1, 12))
    const = generator.synthesize(codes)
    assert torch.equal(const, generator.synthesize(codes, noise="const"))
    assert not torch.equal(const, generator.synthesize(codes, noise="none"))
    assert not torch.equal(
        generator.synthesize(codes, noise="random"), generator.synthesize(codes, noise="random")
    )
    maps = [layer.noise for layer in generator.synthesis.layers]
    assert torch.equal(const, generator.synthesize(codes, noise=maps))


def test_truncation_reaches_the_average(generator: Generator) -> None:
    z = torch.randn(4, 12)
    torch.testing.assert_close(
        generator.map(z, truncation=0.0), generator.w_average.expand(4, -1), rtol=0, atol=1e-6
    )
    rows = generator.map(z, truncation=0.5, truncated_rows=3)
    whole = generator.map(z)
    torch.testing.assert_close(rows[:, 3:], whole[:, None].expand(-1, 5, -1))
    torch.testing.assert_close(rows[:, 0], truncate(whole, generator.w_average, 0.5))


def test_style_mixing_takes_rows_of_both() -> None:
    first, second = torch.zeros(2, 3), torch.ones(2, 3)
    mixed = style_mixing(first, second, num_rows=5, crossover=torch.tensor([2, 5]))
    assert mixed[0, :, 0].tolist() == [0, 0, 1, 1, 1]
    assert mixed[1, :, 0].tolist() == [0] * 5


@pytest.mark.parametrize(
    ("name", "index"),
    [("4x4/0", 0), ("8x8/0", 1), ("8x8/1", 2), ("16x16/0", 3), ("16x16/1", 4), ("1024x1024/1", 16)],
)
def test_layer_names(name: str, index: int) -> None:
    assert Layer.parse(name) == Layer(index) == Layer.parse(index)
    assert Layer(index).name == name


@pytest.mark.parametrize("name", ["4x4/1", "2x2/0", "12x12/0", "8x16/0", "8x8/2", "8x8", ""])
def test_no_such_layer(name: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Layer.parse(name)


def test_a_layer_beyond_the_last_is_refused(generator: Generator) -> None:
    with pytest.raises(ValueError, match="32x32/1"):
        generator.layer("64x64/0")


def test_bad_shapes_name_what_was_given(generator: Generator) -> None:
    with pytest.raises(ValueError, match=r"\(2, 13\)"):
        generator.map(torch.zeros(2, 13))
    with pytest.raises(ValueError, match=r"\(2, 7, 20\)"):
        generator.synthesize(torch.zeros(2, 7, 20))
    with pytest.raises(ValueError, match="48"):
        Generator(resolution=48)


def test_spaces() -> None:
    assert [space.value for space in LatentSpace] == ["Z", "Z+", "W", "W+"]
    assert LatentSpace.Z_PLUS.has_rows
    assert not LatentSpace.W.has_rows


def test_minibatch_deviation_against_numpy() -> None:
    x = torch.randn(6, 3, 2, 2)
    plane = append_minibatch_deviation(x, 3)[:, 3]
    for member in range(2):  # groups are 0, 2, 4 and 1, 3, 5
        group = x[member::2].numpy()
        expected = ((group.var(axis=0) + 1e-8) ** 0.5).mean()
        assert torch.allclose(plane[member::2], torch.tensor(expected), atol=1e-6)
    with pytest.raises(ValueError, match="batch of 5"):
        append_minibatch_deviation(torch.zeros(5, 1, 2, 2), 4)


def test_discriminator_of_odd_widths_trains_through_its_gradient() -> None:
    discriminator = Discriminator(resolution=16, channels=[6, 5, 3])
    images = torch.randn(4, 3, 16, 16, requires_grad=True)
    logits = discriminator(images)
    assert logits.shape == (4, 1)
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    gradient.square().sum().backward()
    assert all(
        p.grad is not None for name, p in discriminator.named_parameters() if "weight" in name
    )
