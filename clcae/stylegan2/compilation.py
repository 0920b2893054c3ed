"""Compiles the elementwise part of synthesis by torch.compile.

Convolutions take nine tenths of the time and are not compiled; noise, bias and leaky ReLU are three
passes over every feature map, which torch.compile fuses to one (as the project's kernel does on a
GPU). One function is compiled, for maps of every size, which takes seconds at the first picture;
torch caches it on disk (TORCHINDUCTOR_CACHE_DIR) for the next process.
"""

from typing import TypeVar

from torch import nn

from clcae.ops import bias_act_
from clcae.ops.compilation import compiled_or_plain
from clcae.stylegan2.synthesis import StyledConv

ModuleType = TypeVar("ModuleType", bound=nn.Module)


def compiled(module: ModuleType) -> ModuleType:
    """Compiles the elementwise part of every synthesis network within `module`; returns `module`.

    Results stay the same within rounding; `module` is changed in place, its weights are not. If
    compilation fails, it runs uncompiled and the reason is logged once. Not for second derivatives
    (path length).
    """
    activate = compiled_or_plain(bias_act_, dynamic=True)
    for layer in module.modules():
        if isinstance(layer, StyledConv):
            layer.activate = activate
    return module
