"""Inversion by optimisation: what it finds, in which rows, and the promises of every method."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_methods import Halves, small_e4e, tiny_generator, tiny_images, with_feature
from torch import Tensor

from clcae.encoders.base_code import BaseCodeEncoder
from clcae.losses.optimization import squared_errors
from clcae.methods.interface import OUTPUTS, Inversion, parse_output
from clcae.methods.inversion_file import join, split
from clcae.methods.optimization import Optimization
from clcae.methods.optimizer.search import Search
from clcae.metrics.cost import count_operations
from clcae.stylegan2 import Generator, LatentSpace, Layer, Prefix, truncate

SPACES = [space.value for space in LatentSpace]


@pytest.fixture(scope="module")
def generator() -> Generator:
    return tiny_generator()


@pytest.fixture(scope="module")
def images(generator: Generator) -> Tensor:
    return tiny_images(generator)


def error(method: Optimization, images: Tensor) -> Tensor:
    return squared_errors(method.synthesize(method.invert(images)), images)


def test_names_of_outputs() -> None:
    assert (*SPACES, "F", *(f"F/{space}" for space in SPACES)) == OUTPUTS
    assert parse_output("F/Z+") == (LatentSpace.Z_PLUS, True)
    assert parse_output("F") == (LatentSpace.W_PLUS, True)
    assert parse_output("Z") == (LatentSpace.Z, False)
    with pytest.raises(ValueError, match="output is 'F/S', expected one of Z, Z"):
        parse_output("F/S")


def adam(method: Optimization, images: Tensor) -> Tensor:
    """The same search by torch's Adam, of codes alone and a constant rate."""
    generator, space = method.generator, parse_output(method.output)[0]
    start = Search(method.search_settings(), images).start
    codes = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([codes], lr=method.lr)
    for _ in range(method.steps):
        mapped = codes if space.is_mapped else generator.map(codes)
        made = generator.synthesize(mapped.expand(-1, generator.num_codes, -1))
        loss = (made - images).square().mean(dim=(1, 2, 3)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = codes.detach()
    if not space.is_mapped:
        found = found / found.square().mean(dim=-1, keepdim=True).sqrt()
    return found.expand(-1, generator.num_codes, -1)


@pytest.mark.parametrize("output", SPACES)
def test_it_is_adam_on_the_squared_error(generator: Generator, images: Tensor, output: str) -> None:
    method = Optimization(generator=generator, steps=12, schedule="constant", output=output)
    found = method.invert(images)
    assert found.space is LatentSpace(output) and found.feature is None
    torch.testing.assert_close(found.codes, adam(method, images), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("space", LatentSpace)
def test_pictures_of_the_generator_are_found(generator: Generator, space: LatentSpace) -> None:
    rng = torch.Generator().manual_seed(1)
    images = generator.synthesize(generator.map(torch.randn(3, 8, generator=rng)))
    average = error(Optimization(generator=generator, steps=0, output="W"), images)
    found = error(Optimization(generator=generator, steps=200, output=space.value), images)
    rest = 0.02 if space.is_mapped else 0.4  # from a random start some minima are local
    assert bool((found < rest * average).all())


def test_codes_of_z_start_alike_and_end_on_the_sphere(generator: Generator, images: Tensor) -> None:
    for output in ("Z", "Z+", "F/Z", "F/Z+"):
        start, found = (
            with_feature(generator, steps=steps, output=output).invert(images).codes
            for steps in (0, 10)
        )
        assert torch.equal(start, start[:1].expand(3, -1, -1))
        assert not torch.equal(found, start)
        for codes in (start, found):
            torch.testing.assert_close(codes.square().mean(dim=-1), torch.ones(3, 6))


def test_more_steps_come_nearer_and_none_is_the_average(
    generator: Generator, images: Tensor
) -> None:
    average = Optimization(generator=generator, steps=0, output="W")
    assert torch.equal(average.invert(images).codes, generator.w_average.expand(3, 6, -1))
    methods = [average, *(Optimization(generator=generator, steps=steps) for steps in (10, 60))]
    errors = [float(error(method, images).mean()) for method in methods]
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize("output", [f"F/{space}" for space in SPACES])
def test_the_feature_replaces_the_generators_own(
    generator: Generator, images: Tensor, output: str
) -> None:
    method = with_feature(generator, output=output)
    found = method.invert(images)
    assert found.layer == Layer(1) and found.feature is not None
    assert found.feature.shape == (3, 8, 8, 8)
    codes = method.mapped(found).codes
    expected = generator.synthesize(
        codes, at=(Layer(1), lambda own: found.feature), keep_skip=False
    )
    torch.testing.assert_close(method.synthesize(found), expected)
    other = replace(found, codes=found.codes.clone(), space=found.space.with_rows)
    other.codes[:, : method.inert_rows] += 1.0
    torch.testing.assert_close(method.synthesize(other), method.synthesize(found))
    other.codes[:, method.inert_rows] += 1.0
    assert not torch.allclose(method.synthesize(other), method.synthesize(found))
    nothing = with_feature(generator, output=output, steps=0)
    assert bool((error(method, images) < error(nothing, images)).all())


def test_gradients_reach_exactly_the_rows_behind_the_feature(
    generator: Generator, images: Tensor
) -> None:
    for output, first in (("F/Z+", 2), ("F/W+", 2), ("Z+", 0), ("W+", 0)):
        method = with_feature(generator, output=output)
        assert method.inert_rows == first
        start, found = (
            with_feature(generator, output=output, steps=steps).invert(images).codes
            for steps in (0, 3)
        )
        moved = (found != start).any(dim=2)
        assert bool(moved[:, first:].all()) and not bool(moved[:, :first].any())


def test_layers_up_to_the_feature_are_not_computed(generator: Generator, images: Tensor) -> None:
    calls: list[int] = []
    hooks = [
        layer.register_forward_hook(lambda *_, index=index: calls.append(index))
        for index, layer in enumerate(generator.synthesis.layers)
    ]
    try:
        search = Search(with_feature(generator, layer="8x8/1").search_settings(), images)
        calls.clear()
        search.run()
    finally:
        for hook in hooks:
            hook.remove()
    assert {*calls} == {3, 4}


def test_a_step_costs_what_the_layers_behind_the_feature_cost() -> None:
    """Operations of the whole step against forward and backward pass of those layers alone."""
    torch.manual_seed(0)
    wide = Generator(resolution=64, z_dim=16, w_dim=16, mapping_layers=4, channels=[32] * 5)
    wide.eval().requires_grad_(False)
    images = torch.zeros(1, 3, 64, 64)
    method = Optimization(generator=wide, output="F/Z+", steps=1)
    feature, codes = torch.randn(1, 32, 16, 16), torch.randn(1, 10, 16)

    @torch.enable_grad()
    def touched() -> Tensor:
        leaves = [feature.clone().requires_grad_(), codes.clone().requires_grad_()]
        made = wide.finish(Prefix(Layer(3), leaves[0], None), leaves[1])
        return torch.autograd.grad(made.sum(), leaves)[0]

    search = Search(method.search_settings(), images)
    assert count_operations(search.run) <= 1.15 * count_operations(touched)


def test_gradients_are_found_where_nobody_else_wants_them(
    generator: Generator, images: Tensor
) -> None:
    method = Optimization(generator=generator, steps=5)
    expected = method.invert(images).codes
    with torch.inference_mode():
        again = images * 1.0
        assert torch.equal(method.invert(again).codes, expected)
    with torch.no_grad():
        assert torch.equal(method.invert(images).codes, expected)
    assert not expected.requires_grad and all(p.grad is None for p in generator.parameters())


@pytest.mark.parametrize("output", ["Z", "W+", "F/Z+"])
def test_pictures_are_searched_alone_and_in_chunks(
    generator: Generator, images: Tensor, output: str
) -> None:
    settings: dict[str, Any] = {"steps": 20, "output": output, "noise": "free"}
    whole = with_feature(generator, **settings).invert(images)
    chunks = with_feature(generator, **settings, at_once=2).invert(images)
    alone = join([with_feature(generator, **settings).invert(image[None]) for image in images])
    for other in (chunks, alone):
        torch.testing.assert_close(other.codes, whole.codes, rtol=0, atol=1e-3)
        assert other.context.keys() == whole.context.keys()
    single = with_feature(generator, **settings, at_once=1)
    for image, found in zip(images, split(single.invert(images)), strict=True):
        assert torch.equal(single.invert(image[None]).codes, found.codes)  # bit for bit


def test_memory_is_that_of_a_chunk(generator: Generator, images: Tensor) -> None:
    sizes: list[int] = []
    hook = generator.synthesis.layers[4].register_forward_hook(
        lambda _, given, made: sizes.append(len(made))
    )
    try:
        with_feature(generator, at_once=2, steps=3).invert(images.repeat(3, 1, 1, 1))
    finally:
        hook.remove()
    assert max(sizes) == 2 and sizes.count(2) == 12 and sizes.count(1) == 3
    assert Optimization(generator=generator).at_once == 256


def test_a_picture_stops_where_it_gains_no_more(generator: Generator, images: Tensor) -> None:
    settings: dict[str, Any] = {"steps": 300, "lr": 0.05, "schedule": "constant", "at_once": 1}
    full = error(Optimization(generator=generator, **settings), images)
    steps: list[int] = []
    method = Optimization(generator=generator, **settings, patience=20, least_gain=0.1)
    for image in images:
        search = Search(method.search_settings(), image[None])
        count = [0]
        search.run(lambda count=count: count.__setitem__(0, count[0] + 1))
        steps.append(count[0])
    assert max(steps) < 300 and min(steps) > 20
    together = Optimization(
        generator=generator, **{**settings, "at_once": 3}, patience=20, least_gain=0.1
    )
    found, alone = together.invert(images), method.invert(images)
    # The others go on when one has stopped.
    torch.testing.assert_close(found.codes, alone.codes, rtol=0, atol=2e-2)
    stopped = squared_errors(method.synthesize(alone), images)
    assert bool((stopped < 3 * full + 0.01).all())


def test_truncation_is_within_the_search_and_stays_with_the_inversion(
    generator: Generator, images: Tensor
) -> None:
    settings: dict[str, Any] = {"truncation": 0.7, "truncated_rows": 3}
    for output in ("Z", "Z+", "F/Z+"):
        method = with_feature(generator, **settings, output=output)
        found = method.invert(images)
        mapped = method.mapped(found)
        assert mapped.space is LatentSpace.W_PLUS and mapped.feature is found.feature
        w = generator.map(found.codes)
        expected = truncate(w, generator.w_average, 0.7, num_rows=3)
        torch.testing.assert_close(mapped.codes, expected)
        search = Search(method.search_settings(), images)
        seen = search.mapped(found.codes[:, search.live][:, : None if "+" in output else 1], 0)
        first = method.inert_rows
        torch.testing.assert_close(seen[:, first:], expected[:, first:])
        plain = with_feature(generator, output=output)  # another method, the same picture
        assert torch.equal(plain.synthesize(found), method.synthesize(found))
        other = replace(found, context={})  # codes from elsewhere: the method's own psi
        assert torch.equal(method.synthesize(other), method.synthesize(found))
    assert (
        "truncation" not in with_feature(generator, **settings, output="W+").invert(images).context
    )


def test_free_noise_maps_are_kept(generator: Generator, images: Tensor) -> None:
    settings: dict[str, Any] = {"weights": {"pixel": 1.0, "noise": 1e-3}, "steps": 60}
    generator = copy.deepcopy(generator)  # where noise has a strength
    for layer in generator.synthesis.layers:
        layer.noise_strength.data.fill_(0.2)
    fixed = with_feature(generator, **settings)
    free = with_feature(generator, **settings, noise="free")
    found = free.invert(images)
    assert sorted(found.context) == ["noise.2", "noise.3", "noise.4"]  # behind the feature
    for value in found.context.values():
        assert value.mean(dim=(1, 2, 3)).abs().max() < 1e-5
        torch.testing.assert_close(value.square().mean(dim=(1, 2, 3)), torch.ones(3))
    maps = [layer.noise for layer in generator.synthesis.layers]
    maps[2:] = [found.context[f"noise.{index}"] for index in (2, 3, 4)]
    codes = free.mapped(found).codes
    expected = generator.synthesize(
        codes, at=(Layer(1), lambda own: found.feature), keep_skip=False, noise=maps
    )
    torch.testing.assert_close(free.synthesize(found), expected)
    assert float(error(free, images).mean()) < float(error(fixed, images).mean())


def test_noise_on_codes_fades(generator: Generator, images: Tensor) -> None:
    settings = Optimization(generator=generator, steps=40, code_noise=0.05).search_settings()
    search = Search(settings, images)
    w = generator.map(torch.randn(5000, 8, generator=torch.Generator().manual_seed(3)))
    deviation = float((w - w.mean(dim=0)).square().sum(dim=1).mean().sqrt())
    codes = search.variables["codes"]
    for step, factor in ((0, 1.0), (15, 0.25), (30, 0.0), (39, 0.0)):
        drawn = search.mapped(codes, step) - codes
        assert torch.equal(drawn, drawn[:1].expand(3, -1, -1))
        expected = 0.05 * deviation * factor
        assert float(drawn[0].square().mean().sqrt()) == pytest.approx(expected, rel=0.35)


def test_the_loss_is_the_weighted_sum_of_its_terms(generator: Generator, images: Tensor) -> None:
    encoder = Optimization(generator=generator, steps=4, output="Z+")
    weights = {"pixel": 1.5, "perceptual": 2.0, "feature": 3.0, "code": 5.0}
    method = with_feature(
        generator, encoder=encoder, perceptual=Halves(), weights=weights, steps=3, start="encoder"
    )
    search = Search(method.search_settings(), images)
    rng = torch.Generator().manual_seed(5)
    moved = {
        name: value[1:] + 0.1 * torch.randn(value[1:].shape, generator=rng)
        for name, value in search.variables.items()
    }
    pictures = torch.tensor([1, 2])
    made = search.pictures(moved, 0)
    encoded = encoder.invert(images)
    z, code = moved["codes"], encoded.codes[1:, 2:]
    z, code = (v / v.square().mean(dim=-1, keepdim=True).sqrt() for v in (z, code))
    own = generator.features(generator.map(encoded.codes), Layer(1))
    square = (made - images[1:]).square()
    expected = (
        1.5 * square.mean(dim=(1, 2, 3))
        + 2.0 * (square.mean(dim=(1, 2, 3)) + square[..., :8].mean(dim=(1, 2, 3)))
        + 3.0 * (moved["feature"] - own[1:]).square().mean(dim=(1, 2, 3))
        + 5.0 * (z - code).square().mean(dim=(1, 2))
    )
    torch.testing.assert_close(search.losses(moved, pictures, 0), expected)


def test_anchors_hold(generator: Generator, images: Tensor) -> None:
    encoder = Optimization(generator=generator, steps=30, output="W+")
    free, held = (
        with_feature(
            generator,
            output="F/W+",
            encoder=encoder,
            start="encoder",
            steps=40,
            weights={"pixel": 1.0, "code": weight, "feature": weight},
        )
        for weight in (0.0, 100.0)
    )
    start = replace(free.invert(images), codes=encoder.invert(images).codes)
    own = generator.features(start.codes, Layer(1))
    for name, target in (("codes", start.codes), ("feature", own)):
        far, near = (
            float((getattr(method.invert(images), name) - target).square().mean())
            for method in (free, held)
        )
        assert near < 0.1 * far


def test_a_base_code_is_where_the_feature_starts(generator: Generator, images: Tensor) -> None:
    torch.manual_seed(2)
    base_code = BaseCodeEncoder(image_size=16, widths=[5], out_channels=8).eval()
    method = with_feature(generator, base_code=base_code, steps=0)
    feature = method.invert(images).feature
    assert feature is not None and torch.equal(feature, base_code(images).detach())
    with pytest.raises(ValueError, match=r"gives features \(7, 8, 8\), the layer 8x8/0 has"):
        with_feature(
            generator, base_code=BaseCodeEncoder(image_size=16, widths=[5], out_channels=7)
        )


def test_an_encoder_is_a_start_in_the_spaces_it_reaches(images: Tensor) -> None:
    encoder = small_e4e()
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    given: dict[str, Any] = {"generator": encoder.generator, "encoder": encoder, "steps": 0}
    method = Optimization(**given, start="encoder")
    codes = encoder.invert(pictures).codes
    assert torch.equal(method.invert(pictures).codes, codes)
    mean = codes.mean(dim=1, keepdim=True).expand(-1, codes.shape[1], -1)
    torch.testing.assert_close(method.with_output("W").invert(pictures).codes, mean)
    with pytest.raises(ValueError, match=r"encoder gives codes of W\+, expected those of Z\+"):
        method.with_output("Z+").invert(pictures)


def test_an_edit_keeps_the_feature(generator: Generator, images: Tensor) -> None:
    method = with_feature(generator)
    found = method.invert(images)
    moved: Inversion = method.edit(found, lambda codes: codes + 0.3)
    assert moved.feature is found.feature and moved.layer == found.layer
    assert moved.space is LatentSpace.Z_PLUS
    assert not torch.allclose(method.synthesize(moved), method.synthesize(found))
    still = method.edit(found, lambda codes: codes + 0.0)
    assert torch.equal(method.synthesize(still), method.synthesize(found))
