"""Parameters and operations against counts by hand."""

import time

import pytest
import torch
from torch import Tensor, nn

from clcae.metrics.cost import count_operations, count_parameters, time_per_image
from clcae.ops.conv2d_resample import conv2d_resample
from clcae.ops.modulated_conv2d import modulated_conv2d, prepared
from clcae.ops.upfirdn2d import low_pass, upfirdn2d


def test_parameters() -> None:
    layer = nn.Linear(5, 7)
    module = nn.Sequential(layer, nn.BatchNorm1d(7), layer)
    assert count_parameters(module) == 5 * 7 + 7 + 2 * 7  # the layer that stands twice counts once
    assert count_parameters(nn.Identity()) == 0


def test_a_multiplication_with_its_addition_counts_two() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.ReLU(), nn.Flatten())
    count = count_operations(module, torch.zeros(2, 3, 16, 16))
    assert count == 2 * 2 * (8 * 8 * 8) * (3 * 3 * 3)
    assert count_operations(nn.Linear(5, 7), torch.zeros(3, 5)) == 2 * 3 * 5 * 7
    attention = nn.functional.scaled_dot_product_attention
    tokens = torch.zeros(1, 2, 10, 8)
    assert count_operations(attention, tokens, tokens, tokens) == 2 * 2 * (2 * 10 * 10 * 8)


def test_gradients_of_an_input_are_counted() -> None:
    """An optimised code is a leaf that goes straight into a module."""
    layer = nn.Linear(5, 7).requires_grad_(False)

    @torch.enable_grad()
    def search() -> Tensor:
        code = torch.zeros(3, 5, requires_grad=True)
        return torch.autograd.grad(layer(code).square().sum(), [code])[0]

    assert count_operations(search) == 2 * (2 * 3 * 5 * 7)  # forward, and back to the code


def test_own_operators_are_counted() -> None:
    x, weight, styles = torch.zeros(1, 6, 16, 16), torch.zeros(4, 6, 3, 3), torch.ones(1, 6)
    main = 2 * (16 * 16) * 4 * 6 * 9
    demodulation = 2 * 4 * 6
    assert count_operations(lambda: modulated_conv2d(x, weight, styles)) == main + demodulation
    taps = 2 * 4 * 32 * 32 * 16  # the filter on every channel of the output
    up = count_operations(lambda: conv2d_resample(x, weight, resample="up", filter=low_pass()))
    assert up == main + taps
    down = count_operations(lambda: conv2d_resample(x, weight, resample="down", filter=low_pass()))
    assert down == main // 4 + 2 * 6 * 17 * 17 * 16


def test_the_form_of_a_convolution_does_not_count() -> None:
    x, weight, styles = torch.zeros(1, 256, 8, 8), torch.zeros(256, 256, 3, 3), torch.ones(1, 256)
    frozen = prepared(weight)
    assert frozen.winograd is not None
    count = count_operations(lambda: modulated_conv2d(x, weight, styles, frozen=frozen))
    assert count == 2 * 64 * 256 * 256 * 9 + 2 * 256 * 256  # and the demodulation


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2)])
def test_the_kernel_of_the_filter_counts_as_its_reference(up: int, down: int) -> None:
    from clcae.ops import library  # defines the operator, whose shapes are known without a GPU

    x, taps = torch.zeros(2, 3, 10, 12, device="meta"), low_pass()
    by_kernel = count_operations(
        lambda: library.upfirdn2d(
            x, taps.to("meta"), (up, up), (down, down), (2, 1, 2, 1), 1.0, False
        )
    )
    x = torch.zeros(2, 3, 10, 12)
    reference = count_operations(lambda: upfirdn2d(x, taps, up=up, down=down, padding=(2, 1)))
    assert by_kernel == reference > 0


def test_no_gradient_is_kept() -> None:
    layer = nn.Linear(2, 2)
    results = []
    count_operations(lambda x: results.append(layer(x)), torch.zeros(1, 2))
    assert not results[0].requires_grad


def test_time_per_image_is_in_milliseconds_and_warms_up() -> None:
    calls = []

    def sleep(images: Tensor) -> None:
        calls.append(len(images))
        time.sleep(0.02)

    milliseconds = time_per_image(sleep, torch.zeros(4, 3, 2, 2), repeats=3, warmup=2)
    assert calls == [4] * 5
    assert 4.9 < milliseconds < 50
    with pytest.raises(ValueError, match="nothing to time"):
        time_per_image(sleep, torch.zeros(0, 3, 2, 2))
