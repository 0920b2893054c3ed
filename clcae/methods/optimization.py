"""Inversion by optimising the code itself: W and W+.

Abdal et al. 2019 (Image2StyleGAN); Karras et al. 2020, appendix D, from whom the start at the mean
of W and the cosine ramp of the learning rate are taken. Deviations: noise maps stay the
generator's own and are neither optimised nor perturbed, and the default loss is the squared error
alone.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from clcae.stylegan2 import Generator, LatentSpace, broadcast_rows

Loss = Callable[[Tensor, Tensor], Tensor]  # (synthesised, target) -> [N]


def squared_error(images: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error of every picture, [N]."""
    return (images - targets).square().mean(dim=(1, 2, 3))


def project(
    generator: Generator,
    images: Tensor,  # [N, 3, H, W], in [-1, 1]
    *,
    space: LatentSpace,
    steps: int = 500,
    lr: float = 0.1,
    loss: Loss = squared_error,
    progress: Callable[[int, float], None] | None = None,
) -> Tensor:
    """Codes whose pictures come as near to `images` as Adam finds.

    Args:
        generator: frozen or not; its parameters get no gradient.
        images: targets at the generator's resolution.
        space: W, or W+ (one row a layer).
        steps: of Adam.
        lr: highest learning rate; it rises over the first 5 % and falls over the last quarter.
        loss: of every picture; the sum over the batch is minimised, so pictures do not interact.
        progress: called with the step and the mean loss.

    Returns:
        [N, w_dim] or [N, L, w_dim].

    Raises:
        ValueError: another space, or images of another resolution.
    """
    if space not in (LatentSpace.W, LatentSpace.W_PLUS):
        raise ValueError(f"space is {space}, expected W or W+")
    if images.shape[-1] != generator.resolution or images.shape[-2] != generator.resolution:
        raise ValueError(
            f"images are {tuple(images.shape[-2:])}, this generator makes "
            f"{generator.resolution}x{generator.resolution}"
        )
    start = generator.w_average.expand(len(images), -1)
    if space.has_rows:
        start = broadcast_rows(start, generator.num_codes)
    codes = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([codes], lr=lr)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * _ramp(step / steps)
        with torch.enable_grad():
            losses = loss(generator.synthesize(codes), images)
            (codes.grad,) = torch.autograd.grad(losses.sum(), [codes])
        optimizer.step()
        if progress is not None:
            progress(step + 1, float(losses.detach().mean()))
    return codes.detach()


def _ramp(done: float) -> float:
    """The learning-rate factor at a fraction of the steps (Karras et al. 2020, appendix D)."""
    fall = min(1.0, (1.0 - done) / 0.25)
    return (0.5 - 0.5 * math.cos(math.pi * fall)) * min(1.0, done / 0.05 + 1e-3)
