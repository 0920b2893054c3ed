"""Forms of networks for inference: batch norm folded, wide convolutions by Winograd, bfloat16.

In evaluation mode batch norm is a scale and a shift of each channel. After a convolution or linear
layer both are folded into its weight and bias. Before a padded convolution it stays, because zeros
are padded after it.

In bfloat16 convolutions and what lies between them are computed; their weights are converted once.
Linear layers, which compute codes and attend, and moments of batch norm stay float32.
"""

import copy
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from clcae.nn.batch_norm import BatchNorm1d
from clcae.nn.equalized import EqualizedLinear
from clcae.nn.trunk import ResidualUnit
from clcae.ops import winograd
from clcae.precision import Precision

ModuleType = TypeVar("ModuleType", bound=nn.Module)


class _Winograd(nn.Module):
    """Runs a wide 3x3 convolution in Winograd's form if possible, plainly otherwise."""

    weight: Tensor

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", winograd.transformed(conv.weight.detach()).to(dtype))
        self.conv = conv.to(dtype)

    @staticmethod
    def fits(conv: nn.Conv2d) -> bool:
        """Returns whether the convolution is a plain "same" one, and wide enough."""
        plain = (conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode)
        return plain == ((1, 1), (1, 1), (1, 1), 1, "zeros") and winograd.pays(conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        recorded = torch.is_grad_enabled() and x.requires_grad
        x = x.to(self.weight.dtype)
        if recorded or not winograd.takes(x):
            return self.conv(x)
        x = winograd.winograd_conv2d(x, self.weight)
        return x if self.conv.bias is None else x.add_(self.conv.bias[:, None, None])


def folded(module: ModuleType, precision: Precision = "float32") -> ModuleType:
    """Copies a network for inference, with batch norm folded into the layers before it.

    Folds in every `nn.Sequential` and in the residual units of the trunk. The copy computes what
    the module does in eval mode, within rounding, on the module's device. Its parameters do not
    train, its state dict has other keys, and on a CPU wide convolutions also hold their transformed
    weights. It shares with the module what is neither folded nor converted: of a module that was
    trained on, another copy is needed. In bfloat16 a tensor that it returns is float32; of several,
    features are bfloat16.
    """
    shared: dict[int, Any] = {id(tensor): tensor for tensor in module.buffers()}
    for parameter in module.parameters():
        shared[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    module = copy.deepcopy(module, shared).eval()
    for layer in module.modules():
        if isinstance(layer, nn.Sequential):
            for first, second in pairwise([name for name, _ in layer.named_children()]):
                _fold(layer, first, second)
        elif isinstance(layer, ResidualUnit):
            _fold(layer, "conv1", "norm1")
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    for layer in list(module.modules()):
        for name, child in list(layer.named_children()):
            if isinstance(child, nn.Conv2d) and _Winograd.fits(child):
                layer.add_module(name, _Winograd(child, dtype))
    if precision == "bfloat16":
        _convert(module)
    return module.to(memory_format=torch.channels_last)


def _convert(module: nn.Module) -> None:
    """Converts convolutions and PReLU to bfloat16; layers cast inputs of another type."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.PReLU):
            layer.to(torch.bfloat16)
        elif not isinstance(layer, nn.Linear | EqualizedLinear | nn.LayerNorm | BatchNorm1d):
            continue
        layer.register_forward_pre_hook(_cast_input)
    module.register_forward_hook(_cast_output)


def _cast_input(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    first, *rest = inputs
    return (first.to(next(layer.parameters()).dtype), *rest)


def _cast_output(module: nn.Module, inputs: Any, output: Any) -> Any:
    return output.float() if isinstance(output, Tensor) else output


def _fold(parent: nn.Module, first: str, second: str) -> None:
    """Folds the batch norm `second` into the layer `first`; leaves an identity in its place."""
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
