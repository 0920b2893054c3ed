"""bfloat16, with float16 at the four highest resolutions, on a GPU; run with -m gpu."""

import pytest
import torch
from small_methods import SIDE, small_clcae, small_e4e, small_styleres

from clcae.methods.interface import InversionMethod
from clcae.precision import resolve
from clcae.stylegan2 import Generator

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def decibels(value: torch.Tensor, exact: torch.Tensor) -> float:
    assert value.dtype == torch.float32
    return float(10 * torch.log10(exact.var() / (value - exact).square().mean()))


@pytest.mark.parametrize("samples", [1, 3])
@torch.inference_mode()
def test_synthesis_of_official_width(samples: int) -> None:
    torch.manual_seed(0)
    generator = Generator(resolution=256).cuda().eval()
    for layer in generator.synthesis.layers:
        torch.nn.init.constant_(layer.noise_strength, 0.1)
    fast = generator.for_inference(resolve("bfloat16", torch.device("cuda"))[0])
    codes = torch.randn(samples, generator.num_codes, 512, device="cuda")
    assert decibels(fast.synthesize(codes), generator.synthesize(codes)) > 35


@pytest.mark.parametrize("build", [small_clcae, small_e4e, small_styleres])
@torch.inference_mode()
def test_methods(build: type[InversionMethod]) -> None:
    method = build().cuda()
    fast = method.for_inference("bfloat16")
    images = torch.rand(2, 3, SIDE, SIDE, device="cuda") * 2 - 1
    exact, near = method.invert(images), fast.invert(images)
    assert float((near.codes - exact.codes).norm() / exact.codes.norm()) < 0.01
    assert decibels(fast.synthesize(near), method.synthesize(exact)) > 30
