"""Synthesis in bfloat16, and in CUDA's mixture with float16, against float64."""

import copy
import math
from typing import Any

import pytest
import torch
from small_methods import noisy_generator
from torch import Tensor

from clcae import load_generator
from clcae.ops import bias_act_, winograd
from clcae.ops import styled_conv2d as module
from clcae.stylegan2 import Generator, Layer, Prefix


def small(channels: tuple[int, ...] = (24, 20, 16, 12)) -> Generator:
    return noisy_generator(channels).requires_grad_(False)


def decibels(value: Tensor, exact: Tensor) -> float:
    """The signal to the difference."""
    return 10 * math.log10(float(exact.var() / (value - exact).square().mean()))


@pytest.fixture
def codes() -> Tensor:
    return torch.randn(3, 8, 10, generator=torch.Generator().manual_seed(1))


# bfloat16 keeps 8 binary digits: 59 dB after one rounding of uniformly spread numbers, and some 20
# roundings one after the other lose up to 13 dB of that; float16 has 3 digits, 18 dB, more.
@pytest.mark.parametrize(("dtype", "least"), [(torch.bfloat16, 40.0), (torch.float16, 55.0)])
@pytest.mark.parametrize("noise", ["const", "none", "maps"])
def test_pictures_are_those_of_float64(
    monkeypatch: pytest.MonkeyPatch, codes: Tensor, dtype: torch.dtype, least: float, noise: str
) -> None:
    generator = small()
    fast = generator.for_inference("bfloat16")
    monkeypatch.setattr(type(fast.synthesis), "_reduced_type", lambda *_: dtype)
    double = copy.deepcopy(generator).double()
    maps = [torch.randn(3, 1, *layer.noise.shape[2:]) for layer in generator.synthesis.layers]
    given = maps if noise == "maps" else noise
    exact = double.synthesize(
        codes.double(), noise=[m.double() for m in maps] if noise == "maps" else noise
    )
    for count in (3, 1):
        value = fast.synthesize(
            codes[:count], noise=[m[:count] for m in given] if noise == "maps" else given
        )
        assert value.dtype == torch.float32
        assert decibels(value, exact[:count]) > least
    with torch.inference_mode():
        assert decibels(fast.synthesize(codes, noise=given), exact) > least


@pytest.mark.parametrize("count", [1, 2])
def test_wide_layers_take_winograds_form(codes: Tensor, count: int) -> None:
    """Which adds an error of its own, twice that of a rounding, in bfloat16."""
    generator = small((8, 8, 256, 256))
    fast = generator.for_inference("bfloat16")
    weight = fast.synthesis.layers[6].reduced_weight(torch.bfloat16)
    assert weight.takes_winograd(torch.empty(1, 256, 32, 32, dtype=torch.bfloat16))
    exact = generator.synthesize(codes[:count])
    value = fast.synthesize(codes[:count])
    with winograd.disabled():
        plain = fast.synthesize(codes[:count])
    assert not torch.equal(value, plain) and decibels(value, plain) > 38
    assert decibels(value, exact) > 36 and decibels(plain, exact) > 38


def test_large_styles_and_weights_stay_within_float16(
    monkeypatch: pytest.MonkeyPatch, codes: Tensor
) -> None:
    """Of 65504: products of such weights and styles alone would be beyond."""
    generator = small()
    for layer in generator.synthesis.layers:
        layer.weight.mul_(1e4)
        layer.affine.weight.mul_(1e3)
    fast = generator.for_inference("bfloat16")
    monkeypatch.setattr(type(fast.synthesis), "_reduced_type", lambda *_: torch.float16)
    for block in fast.synthesis.to_rgbs:
        block.weight.mul_(1e-3)
    features = fast.features(codes, Layer(6))
    assert bool(features.isfinite().all()) and float(features.abs().max()) <= module.CLAMP
    assert decibels(features, generator.features(codes, Layer(6)).clamp(-256, 256)) > 55


def test_cuda_has_the_four_highest_resolutions_in_float16() -> None:
    generator = Generator(resolution=128, z_dim=4, w_dim=4, channels=[4] * 6, mapping_layers=1)
    for device, expected in (("cuda", [16, 32, 64, 128]), ("cpu", [])):
        types = {
            layer.resolution
            for layer in map(Layer, range(generator.num_layers))
            if generator.synthesis._reduced_type(layer, torch.device(device)) == torch.float16
        }
        assert sorted(types) == expected


def test_a_copy_shares_weights_and_leaves_the_generator_as_it_is(codes: Tensor) -> None:
    generator = small().requires_grad_(True)
    fast = generator.for_inference("bfloat16")
    assert (generator.precision, fast.precision) == ("float32", "bfloat16")
    assert fast.state_dict().keys() == generator.state_dict().keys()
    for name, value in generator.state_dict().items():
        assert fast.state_dict()[name].data_ptr() == value.data_ptr()
    assert all(p.requires_grad for p in generator.parameters())
    with torch.no_grad():
        before = fast.synthesize(codes)
        generator.synthesis.layers[2].weight.mul_(torch.linspace(0.5, 2, 20)[:, None, None])
        generator.synthesis.layers[1].affine.weight.add_(1)
        assert not torch.equal(fast.synthesize(codes), before)
        again = fast.for_inference("float32")
        assert torch.equal(again.synthesize(codes), generator.synthesize(codes))


def test_gradients_are_those_of_float32(codes: Tensor) -> None:
    generator = small()
    fast = generator.for_inference("bfloat16")
    gradients = []
    for each in (generator, fast):
        leaf = codes.clone().requires_grad_()
        each.synthesize(leaf).square().mean().backward()
        gradients.append(leaf.grad)
    assert gradients[0] is not None and gradients[1] is not None
    assert torch.equal(*gradients)


def test_features_between_are_float32(codes: Tensor) -> None:
    fast = small().for_inference("bfloat16")
    prefix = fast.begin(codes, Layer(3))
    assert prefix.feature.dtype == torch.float32
    assert prefix.rgb is not None and prefix.rgb.dtype == torch.float32
    plain = Prefix(prefix.layer, prefix.feature.contiguous(), prefix.rgb)
    torch.testing.assert_close(fast.finish(plain, codes), fast.synthesize(codes), rtol=0, atol=0.05)


def test_blocks_are_the_whole(monkeypatch: pytest.MonkeyPatch, codes: Tensor) -> None:
    fast = small().for_inference("bfloat16")
    whole = fast.synthesize(codes)
    monkeypatch.setattr(module, "BLOCK", 50)  # less than a row of pixels: one row at a time
    assert torch.equal(fast.synthesize(codes), whole)


def test_a_compiled_generator_keeps_its_activation(codes: Tensor) -> None:
    generator = small()
    plain, calls = generator.for_inference("bfloat16").synthesize(codes), []

    def activate(x: Tensor, *given: Any, **options: Any) -> Tensor:
        calls.append(x.dtype)
        return bias_act_(x, *given, **options)

    for layer in generator.synthesis.layers:
        layer.activate = activate
    assert decibels(generator.for_inference("bfloat16").synthesize(codes), plain) > 40
    assert {*calls} == {torch.bfloat16}


def test_portraits_are_within_52_decibels() -> None:
    """Of [-1, 1], as PSNR counts them: less than a step of the 255 of a file."""
    generator = load_generator("portraits").requires_grad_(False)
    rng = torch.Generator().manual_seed(0)
    w = generator.map(torch.randn(8, generator.z_dim, generator=rng))
    value, exact = generator.for_inference("bfloat16").synthesize(w), generator.synthesize(w)
    errors = (value.clamp(-1, 1) - exact.clamp(-1, 1)).square().mean(dim=(1, 2, 3))
    assert float((10 * torch.log10(4 / errors)).min()) > 52
