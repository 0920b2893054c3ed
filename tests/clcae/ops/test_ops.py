"""The reference operators against textbook forms in float64, and their two derivatives."""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clcae.ops import (
    bias_act,
    conv2d_resample,
    low_pass,
    modulated_conv2d,
    upfirdn2d,
    upsample2d,
)


def textbook_upfirdn(
    x: Tensor, filter: Tensor, up: int, down: int, padding: tuple[int, int], gain: float
) -> Tensor:
    """Computes upfirdn2d by its definition, with the flipped 2-D kernel."""
    n, c, h, w = x.shape
    wide = x.new_zeros(n, c, h, up, w, up)
    wide[:, :, :, 0, :, 0] = x
    wide = F.pad(wide.reshape(n, c, h * up, w * up), (*padding, *padding))
    kernel = torch.outer(filter, filter).flip(0, 1) * gain
    out = F.conv2d(wide.reshape(n * c, 1, *wide.shape[2:]), kernel[None, None])
    return out.reshape(n, c, *out.shape[2:])[:, :, ::down, ::down]


@pytest.mark.parametrize("up", [1, 2, 3])
@pytest.mark.parametrize("down", [1, 2, 3])
@pytest.mark.parametrize("padding", [(0, 0), (2, 1), (-1, 2), (3, -2), (1, 4), (5, 5)])
def test_upfirdn_equals_the_textbook(up: int, down: int, padding: tuple[int, int]) -> None:
    x = torch.randn(2, 3, 9, 7, dtype=torch.float64)
    filter = torch.tensor([1.0, 2.0, 5.0, 3.0], dtype=torch.float64)  # not symmetric
    expected = textbook_upfirdn(x, filter, up, down, padding, 1.7)
    value = upfirdn2d(x, filter, up=up, down=down, padding=padding, gain=1.7)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)


def test_resampling_keeps_constants_and_sizes() -> None:
    x = torch.full([1, 2, 8, 8], 3.0)
    halved = upfirdn2d(x, low_pass(), down=2, padding=(1, 1))
    for value, side in ((upsample2d(x, low_pass()), 16), (halved, 4)):
        assert value.shape == (1, 2, side, side)
        inner = value[:, :, side // 4 : -side // 4, side // 4 : -side // 4]
        # Away from the zero padding a constant stays itself.
        torch.testing.assert_close(inner, torch.full_like(inner, 3.0))


@pytest.mark.parametrize("resample", ["none", "up", "down"])
def test_conv2d_resample_equals_its_definition(resample: str) -> None:
    x = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    weight = torch.randn(5, 4, 3, 3, dtype=torch.float64)
    filter = low_pass().double()
    if resample == "none":
        expected = F.conv2d(x, weight, padding=1)
    elif resample == "up":  # stylegan2-pytorch: transposed convolution, then blur padded by (1, 1)
        wide = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
        expected = textbook_upfirdn(wide, filter, 1, 1, (1, 1), 4.0)
    else:  # blur padded by (2, 2), then a strided convolution
        expected = F.conv2d(textbook_upfirdn(x, filter, 1, 1, (2, 2), 1.0), weight, stride=2)
    value = conv2d_resample(x, weight, resample=resample, filter=filter)  # type: ignore[arg-type]
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("resample", ["none", "up", "down"])
def test_modulated_conv_equals_scaled_weights(demodulate: bool, resample: str) -> None:
    x = torch.randn(3, 4, 8, 8, dtype=torch.float64)
    weight = torch.randn(5, 4, 3, 3, dtype=torch.float64)
    styles = torch.randn(3, 4, dtype=torch.float64)
    filter = low_pass().double()
    value = modulated_conv2d(
        x,
        weight,
        styles,
        demodulate=demodulate,
        resample=resample,  # type: ignore[arg-type]
        filter=filter,
    )
    for n in range(3):  # equations 1 and 3 of StyleGAN2, one sample at a time
        own = weight * styles[n][None, :, None, None]
        if demodulate:
            own = own / (own.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
        expected = conv2d_resample(x[n : n + 1], own, resample=resample, filter=filter)  # type: ignore[arg-type]
        torch.testing.assert_close(value[n : n + 1], expected, rtol=0, atol=1e-12)


def test_bias_act_values() -> None:
    x = torch.tensor([[-2.0, 1.0], [0.5, -0.5]], dtype=torch.float64)
    bias = torch.tensor([1.0, 2.0], dtype=torch.float64)
    expected = F.leaky_relu(x + bias, 0.2) * math.sqrt(2)
    torch.testing.assert_close(bias_act(x, bias, activation="lrelu"), expected)
    torch.testing.assert_close(bias_act(x, bias), x + bias)
    clamped = bias_act(x, bias, activation="lrelu", clamp=0.5)
    torch.testing.assert_close(clamped, expected.clamp(-0.5, 0.5))
    last = bias_act(torch.zeros(2, 3, 4), torch.arange(4.0), dim=-1)
    torch.testing.assert_close(last[1, 2], torch.arange(4.0))


def test_bias_act_adds_noise_before_the_bias() -> None:
    x, bias = torch.randn(2, 3, 4, 5), torch.randn(3)
    for maps in (1, 2):
        noise = torch.randn(maps, 1, 4, 5)
        value = bias_act(x, bias, activation="lrelu", noise=noise)
        assert torch.equal(value, bias_act(x + noise, bias, activation="lrelu"))
    for shape in ((3, 1, 4, 5), (1, 3, 4, 5), (1, 1, 4, 4), (4, 5)):
        with pytest.raises(ValueError, match=re.escape(str(shape))):
            bias_act(x, bias, noise=torch.zeros(shape))


def test_derivatives_and_second_derivatives() -> None:
    x = torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    styles = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)
    filter = low_pass().double()

    def modulated(x: Tensor, weight: Tensor, styles: Tensor) -> Tensor:
        return modulated_conv2d(x, weight, styles, resample="up", filter=filter)

    def resampled(x: Tensor) -> Tensor:
        return upfirdn2d(x, filter, up=2, down=3, padding=(2, 1))

    def activated(x: Tensor, bias: Tensor) -> Tensor:
        return bias_act(x, bias, activation="lrelu")

    for function, inputs in (
        (modulated, (x, weight, styles)),
        (resampled, (x,)),
        (activated, (x, bias)),
    ):
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


def test_bad_arguments_name_the_value() -> None:
    x = torch.zeros(1, 2, 4, 4)
    with pytest.raises(ValueError, match="'swish'"):
        bias_act(x, activation="swish")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\(3,\)"):
        bias_act(x, torch.zeros(3))
    with pytest.raises(ValueError, match="2x2"):
        upfirdn2d(torch.zeros(1, 1, 2, 2), low_pass())
    with pytest.raises(ValueError, match="'sideways'"):
        conv2d_resample(x, torch.zeros(2, 2, 3, 3), resample="sideways", filter=low_pass())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs a filter"):
        conv2d_resample(x, torch.zeros(2, 2, 3, 3), resample="up")
