"""Forms for inference against forms with gradients; in-place operators against plain ones."""

import pytest
import torch

from clcae.ops import bias_act, bias_act_, low_pass, modulated_conv2d
from clcae.ops.conv2d_resample import Resample
from clcae.ops.modulated_conv2d import prepared


@pytest.mark.parametrize("resample", ["none", "up"])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize(
    ("channels", "side"), [((4, 6), 16), ((6, 4), 2), ((256, 260), 8)], ids=str
)
def test_prepared_weights_without_gradients_equal_float64(
    resample: Resample, samples: int, channels: tuple[int, int], side: int
) -> None:
    torch.manual_seed(0)
    x = torch.randn(samples, channels[0], side, side)
    weight = torch.randn(channels[1], channels[0], 3, 3) / (3 * channels[0] ** 0.5)
    styles = torch.randn(samples, channels[0])
    kept = x.clone()
    exact = modulated_conv2d(
        x.double(),
        weight.double(),
        styles.double().requires_grad_(),
        resample=resample,
        filter=low_pass().double(),
        gain=1.5,
    )
    for frozen in (None, prepared(weight, resample)):
        value = modulated_conv2d(
            x, weight, styles, resample=resample, filter=low_pass(), frozen=frozen, gain=1.5
        )
        torch.testing.assert_close(value.double(), exact.detach(), rtol=0, atol=2e-5)
        graph = modulated_conv2d(
            x.requires_grad_(),
            weight,
            styles,
            resample=resample,
            filter=low_pass(),
            frozen=frozen,
            gain=1.5,
        )
        torch.testing.assert_close(graph.detach(), value, rtol=0, atol=2e-5)
        x.requires_grad_(False)
    assert torch.equal(x, kept)  # the input is not overwritten


def test_gradients_reach_the_styles_past_prepared_weights() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    styles = torch.randn(1, 3, dtype=torch.float64, requires_grad=True)
    frozen = prepared(weight)

    def function(x: torch.Tensor, styles: torch.Tensor) -> torch.Tensor:
        return modulated_conv2d(x, weight, styles, frozen=frozen, gain=2.0)

    assert torch.autograd.gradcheck(function, (x, styles))
    assert torch.autograd.gradgradcheck(function, (x, styles))


@pytest.mark.parametrize("demodulate", [True, False])
def test_a_pointwise_convolution_is_a_matrix_product(demodulate: bool) -> None:
    x, styles = torch.randn(2, 5, 4, 6).double(), torch.randn(2, 5).double()
    weight = torch.randn(3, 5, 1, 1).double()
    for layout in (torch.contiguous_format, torch.channels_last):
        value = modulated_conv2d(
            x.contiguous(memory_format=layout), weight, styles, demodulate=demodulate, gain=2.0
        )
        own = styles[:, None] * weight[None, :, :, 0, 0]  # [N, C_out, C_in]
        if demodulate:
            own = own / own.square().sum(dim=2, keepdim=True).add(1e-8).sqrt()
        torch.testing.assert_close(value, 2 * torch.einsum("noi,nihw->nohw", own, x))


def test_in_place_equals_not_in_place_and_so_do_the_gradients() -> None:
    torch.manual_seed(0)
    bias, noise = torch.randn(3, requires_grad=True), torch.randn(2, 1, 4, 5, requires_grad=True)
    source = torch.randn(2, 3, 4, 5, requires_grad=True)
    for activation in ("linear", "lrelu"):
        results = [
            function(source * 2.0, bias, activation=activation, noise=noise, gain=1.7)  # type: ignore[arg-type]
            for function in (bias_act, bias_act_)
        ]
        torch.testing.assert_close(results[1], results[0])
        grads = [
            torch.autograd.grad(result.square().sum(), (source, bias, noise)) for result in results
        ]
        torch.testing.assert_close(grads[1], grads[0])


def test_in_place_keeps_the_wider_type() -> None:
    x, noise = torch.randn(1, 2, 3, 3).bfloat16(), torch.randn(1, 1, 3, 3)
    assert bias_act_(x, noise=noise).dtype == torch.float32
    with pytest.raises(ValueError, match=r"\(3,\)"):
        bias_act_(x, torch.zeros(3))
