"""The cache of terms of frozen weights, and compiled synthesis."""

import copy
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_methods import noisy_generator

from clcae.stylegan2 import Generator
from clcae.stylegan2.compilation import compiled


def small(channels: tuple[int, ...] = (9, 8, 7, 5)) -> Generator:
    return noisy_generator(channels)


@pytest.mark.parametrize("channels", [(9, 8, 7, 5), (8, 256, 256, 256)], ids=str)
@pytest.mark.parametrize("samples", [1, 2])
def test_without_gradients_equals_float64_with_them(
    channels: tuple[int, ...], samples: int
) -> None:
    generator = small(channels)
    codes = torch.randn(samples, generator.num_codes, 10)
    exact = copy.deepcopy(generator).double().synthesize(codes.double()).detach()
    generator.requires_grad_(False)
    with torch.inference_mode():
        plain = generator.synthesize(codes)
    leaf = codes.clone().requires_grad_()
    graph = generator.synthesize(leaf)
    graph.square().mean().backward()
    for value in (plain, generator.synthesize(codes), graph.detach()):
        assert float((value - exact).abs().max() / exact.abs().max()) < 1e-5
    assert leaf.grad is not None


def test_changed_weights_are_prepared_again() -> None:
    generator = small().requires_grad_(False)
    codes = torch.randn(1, 10)
    first = generator.synthesize(codes)
    with torch.no_grad():
        for layer in generator.synthesis.layers:
            layer.weight.add_(torch.randn_like(layer.weight))
    assert not torch.allclose(generator.synthesize(codes), first)
    trained = copy.deepcopy(generator).requires_grad_(True)  # prepares nothing
    torch.testing.assert_close(
        generator.synthesize(codes), trained.synthesize(codes).detach(), rtol=1e-4, atol=1e-4
    )
    generator.load_state_dict(small().state_dict())
    torch.testing.assert_close(generator.synthesize(codes), first, rtol=0, atol=1e-6)


def test_a_prefix_is_not_overwritten() -> None:
    generator = small().requires_grad_(False)
    codes = torch.randn(1, 10)
    for name in ("8x8/0", "8x8/1", "16x16/1"):
        prefix = generator.begin(codes, generator.layer(name))
        kept = prefix.feature.clone(), None if prefix.rgb is None else prefix.rgb.clone()
        first = generator.finish(prefix, codes)
        assert torch.equal(prefix.feature, kept[0])
        assert kept[1] is None or torch.equal(prefix.rgb, kept[1])  # type: ignore[arg-type]
        assert torch.equal(generator.finish(prefix, codes), first)


@pytest.mark.slow
def test_compiled_equals_eager() -> None:
    generator = small().requires_grad_(False)
    fast = compiled(copy.deepcopy(generator))
    for samples in (1, 2):
        codes = torch.randn(samples, 10)
        with torch.no_grad():
            value, expected = fast.synthesize(codes), generator.synthesize(codes)
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-4)
    leaf = torch.randn(1, 10, requires_grad=True)
    (gradient,) = torch.autograd.grad(fast.synthesize(leaf).square().sum(), leaf)
    (expected,) = torch.autograd.grad(generator.synthesize(leaf).square().sum(), leaf)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)


PROGRAM = """
import torch
from clcae.stylegan2 import Generator
from clcae.stylegan2.compilation import compiled
generator = Generator(resolution=8, z_dim=4, w_dim=4, mapping_layers=1, channels=[3, 3])
expected = generator.requires_grad_(False).synthesize(torch.ones(1, 4))
assert torch.equal(compiled(generator).synthesize(torch.ones(1, 4)), expected)
assert torch.equal(generator.synthesize(torch.ones(1, 4)), expected)
"""


def test_without_a_compiler_it_runs_as_it_was_and_says_so_once(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "CXX": str(tmp_path / "missing"),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("running without torch.compile") == 1, done.stderr


def test_nothing_is_compiled_before_the_first_picture(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        compiled(small())
    assert not caplog.records
