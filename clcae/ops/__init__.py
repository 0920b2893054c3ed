"""The four operators of StyleGAN2, on any device, differentiable twice.

Each is defined by a reference in torch's own operators; on a GPU bias_act and upfirdn2d run as CUDA
kernels of this project where they can be built (kernels.py), with the same results.
"""

from clcae.ops.bias_act import bias_act, bias_act_
from clcae.ops.conv2d_resample import conv2d_resample
from clcae.ops.modulated_conv2d import modulated_conv2d
from clcae.ops.upfirdn2d import low_pass, upfirdn2d, upsample2d

__all__ = [
    "bias_act",
    "bias_act_",
    "conv2d_resample",
    "low_pass",
    "modulated_conv2d",
    "upfirdn2d",
    "upsample2d",
]
