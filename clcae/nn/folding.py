"""Networks for inference: normalisation folded into convolutions, wide ones by Winograd's form.

A batch norm that does not train is one scale and one shift a channel. Where it follows a
convolution, both go into that convolution's weight and bias. One that precedes a padded convolution
stays, because zeros are padded after it.
"""

import copy
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from clcae.nn.trunk import ResidualUnit
from clcae.ops import winograd

ModuleType = TypeVar("ModuleType", bound=nn.Module)


class _Winograd(nn.Module):
    """A wide 3x3 convolution in its faster form; in its own where that cannot be."""

    weight: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.register_buffer("weight", winograd.transformed(conv.weight.detach()))

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        """Whether it is a plain "same" convolution, wide enough."""
        plain = (conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode)
        return plain == ((1, 1), (1, 1), (1, 1), 1, "zeros") and winograd.pays(conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C_in, H, W] -> [N, C_out, H, W]."""
        recorded = torch.is_grad_enabled() and x.requires_grad
        if recorded or not winograd.takes(x):
            return self.conv(x)
        x = winograd.winograd_conv2d(x, self.weight)
        return x if self.conv.bias is None else x.add_(self.conv.bias[:, None, None])


def folded(module: ModuleType) -> ModuleType:
    """A copy in eval mode, without the normalisations that follow a convolution or linear layer.

    Found in every `nn.Sequential` and in the residual units of the trunk. The copy computes what
    the module does in eval mode, within rounding, and is for inference where it is: its parameters
    do not train, its state is another one, and on a CPU its wide convolutions hold their
    transformed weights too.

    Args:
        module: an encoder, or any network made of the layers of this package.

    Returns:
        The copy; `module` itself stays as it is.
    """
    module = copy.deepcopy(module).eval().requires_grad_(False)
    for layer in module.modules():
        if isinstance(layer, nn.Sequential):
            for first, second in pairwise([name for name, _ in layer.named_children()]):
                _fold(layer, first, second)
        elif isinstance(layer, ResidualUnit):
            _fold(layer, "conv1", "norm1")
    for layer in list(module.modules()):
        for name, child in list(layer.named_children()):
            if isinstance(child, nn.Conv2d) and _Winograd.fits(child):
                layer.add_module(name, _Winograd(child))
    return module.to(memory_format=torch.channels_last)


def _fold(parent: nn.Module, first: str, second: str) -> None:
    """Replaces a convolution and its normalisation by one convolution and nothing."""
    layer, norm = parent.get_submodule(first), parent.get_submodule(second)
    if not isinstance(norm, _BatchNorm) or norm.running_var is None:
        return
    if isinstance(layer, nn.Conv2d):
        parent.add_module(first, fuse_conv_bn_eval(layer, norm).requires_grad_(False))
    elif isinstance(layer, nn.Linear):
        parent.add_module(first, fuse_linear_bn_eval(layer, norm).requires_grad_(False))
    else:
        return
    parent.add_module(second, nn.Identity())
