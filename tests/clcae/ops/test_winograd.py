"""Winograd's form of the convolution against the plain sum in float64."""

import pytest
import torch
import torch.nn.functional as F

from clcae.ops import winograd


@pytest.mark.parametrize(
    "shape", [(1, 5, 8, 8), (2, 3, 10, 16), (3, 4, 7, 8), (0, 2, 8, 8)], ids=str
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_equals_the_plain_convolution(
    shape: tuple[int, int, int, int], layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=layout)
    weight = torch.randn(7, shape[1], 3, 3, dtype=torch.float64)
    value = winograd.winograd_conv2d(x, winograd.transformed(weight))
    expected = F.conv2d(x, weight, padding=1)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)


def test_it_is_as_exact_as_the_plain_convolution_in_float32() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, 256, 16, 16), torch.randn(256, 256, 3, 3)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    fast = winograd.winograd_conv2d(x, winograd.transformed(weight))
    assert float((fast - exact).abs().max() / exact.std()) < 2e-5


def test_what_it_is_for() -> None:
    assert winograd.pays(torch.empty(256, 512, 3, 3))
    assert not winograd.pays(torch.empty(128, 512, 3, 3))
    assert not winograd.pays(torch.empty(512, 512, 1, 1))
    assert not winograd.pays(torch.empty(512, 512, 3, 3, dtype=torch.bfloat16))
    assert winograd.takes(torch.empty(2, 4, 7, 16))
    assert not winograd.takes(torch.empty(2, 4, 8, 15))
    assert not winograd.takes(torch.empty(2, 4, 4, 4))
