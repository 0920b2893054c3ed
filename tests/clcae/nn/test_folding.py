"""Folded networks against the networks they come from."""

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from clcae.encoders.e4e import ProgressiveEncoder
from clcae.encoders.pyramid import Pyramid
from clcae.nn.folding import folded


def trained(module: nn.Module, images: torch.Tensor) -> nn.Module:
    """Sets statistics away from their initial values, gains of both signs and some near zero."""
    torch.manual_seed(1)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, _BatchNorm):
                nn.init.normal_(layer.weight, mean=0.5, std=0.5)
                nn.init.normal_(layer.bias, std=0.5)
        module.train()(images)
    return module.eval()


def norms(module: nn.Module) -> int:
    return sum(isinstance(layer, _BatchNorm) for layer in module.modules())


@pytest.mark.parametrize("channels", [(8, 12), (16, 256)])
def test_a_folded_pyramid_equals_it(channels: tuple[int, int]) -> None:
    torch.manual_seed(0)
    stages = [(channels[0], 2), (channels[1], 2)]
    pyramid = Pyramid(stem_channels=8, stages=stages, stem_stride=1, width=16, num_levels=3)
    images = torch.randn(2, 3, 32, 32)
    trained(pyramid, images)
    state = {key: value.clone() for key, value in pyramid.state_dict().items()}
    fast = folded(pyramid)
    shortcuts = 1 + (channels[0] != 8)  # where the width changes
    assert norms(pyramid) == 1 + 4 * 2 + shortcuts
    assert norms(fast) == 4  # those before a padded convolution
    with torch.inference_mode():
        for value, expected in zip(fast(images), pyramid(images), strict=True):
            scale = float(expected.abs().max())
            assert float((value - expected).abs().max()) <= 1e-5 * scale
    assert all(torch.equal(state[key], value) for key, value in pyramid.state_dict().items())
    assert not any(parameter.requires_grad for parameter in fast.parameters())


def test_a_folded_e4e_equals_it_and_passes_gradients_to_the_images() -> None:
    torch.manual_seed(0)
    encoder = ProgressiveEncoder(
        num_rows=8, w_dim=16, image_size=32, stem_channels=8, stages=[(8, 1)] * 3, width=16
    )
    images = torch.randn(2, 3, 32, 32)
    trained(encoder, images)
    fast = folded(encoder)
    results = []
    for network in (encoder, fast):
        leaf = images.clone().requires_grad_()
        codes = network(leaf)
        (gradient,) = torch.autograd.grad(codes.square().sum(), leaf)
        results.append((codes.detach(), gradient))
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(fast(images), encoder(images), rtol=1e-4, atol=1e-5)


def test_linear_layers_fold_too_and_others_stay() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.BatchNorm1d(4))
    trained(network, torch.randn(9, 3))
    fast = folded(network)
    assert norms(fast) == 1  # after the ReLU
    x = torch.randn(5, 3)
    torch.testing.assert_close(fast(x), network(x))


def test_the_form_shares_what_it_does_not_change_and_the_module_stays_what_it_is() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))
    conv, linear = module[0].weight, module[3].weight
    half = folded(module, "bfloat16")
    assert half[3].weight.data_ptr() == linear.data_ptr()
    assert not half[3].weight.requires_grad and linear.requires_grad
    assert (half[0].weight.dtype, conv.dtype) == (torch.bfloat16, torch.float32)
    assert module.training and not half.training
