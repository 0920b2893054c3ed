"""The elementwise part of synthesis as one compiled pass, where there is a compiler.

Convolutions take nine tenths of the time and stay what they are; noise, bias and leaky ReLU are
three passes over every feature map, and one when torch.compile has joined them. The kernels of our
own do that on a GPU anyway. One function is compiled, for maps of every size, which takes seconds
at the first picture; torch keeps it on disk (TORCHINDUCTOR_CACHE_DIR) for the next process.
"""

from typing import TypeVar

from torch import nn

from clcae.ops import bias_act_
from clcae.ops.compilation import compiled_or_plain
from clcae.stylegan2.synthesis import StyledConv

ModuleType = TypeVar("ModuleType", bound=nn.Module)


def compiled(module: ModuleType) -> ModuleType:
    """Lets every synthesis network within `module` run its elementwise part compiled.

    Results are those of the module as it was, within rounding. Without a compiler on the machine it
    runs as it was; the reason is logged once. Not for what is differentiated twice (path length).

    Args:
        module: a generator, or a method that holds one; changed in place, its weights are not.

    Returns:
        The module.
    """
    activate = compiled_or_plain(bias_act_, dynamic=True)
    for layer in module.modules():
        if isinstance(layer, StyledConv):
            layer.activate = activate
    return module
