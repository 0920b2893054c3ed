"""Inversion by optimising the code: the classical baseline, in Z, Z+, W or W+.

Abdal et al. 2019 (Image2StyleGAN) for W+; Karras et al. 2020, appendix D, for W, the start at the
mean of W and the ramps of the learning rate; F/Z+ (arXiv 2307.08995, WACV 2024) for Z and Z+, where
codes start at random on the sphere and the mapping network normalises them at every step.
Deviations: noise maps are neither optimised nor perturbed and the loss is the squared error alone.
Codes of Z and Z+ begin at the same random code for every picture, are not truncated, and are put
back on the sphere of radius sqrt(z_dim) at the end, which changes no picture.

It is deterministic, slow, and has nothing to learn. Without any step, W and W+ give the generator's
average code, below which no method should fall. A code found in W+ reconstructs well and edits
badly, since nothing keeps it where the generator was trained (Tov et al. 2021).
"""

import math

import torch
from torch import Tensor

from clcae.methods.interface import Inversion, InversionMethod
from clcae.serialization import register
from clcae.stylegan2 import Generator, LatentSpace, broadcast_rows, normalize_z

START_SEED = 1  # of the code of Z or Z+ that every search begins with; the authors' default


def project(
    generator: Generator,
    images: Tensor,  # [N, 3, R, R], in [-1, 1]
    *,
    space: LatentSpace,
    steps: int = 500,
    lr: float = 0.1,
) -> Tensor:
    """Searches the codes whose pictures have the least squared error to images, with Adam.

    Every picture is searched by itself, whatever the batch.

    Args:
        generator: frozen or not; its parameters get no gradient.
        images: targets at the generator's resolution R.
        space: of the codes.
        steps: of Adam.
        lr: highest learning rate; it rises over the first 5 % and falls over the last quarter.

    Returns:
        [N, D] for Z and W, [N, L, D] for Z+ and W+.

    Raises:
        ValueError: if images have another resolution.
    """
    if images.shape[-1] != generator.resolution or images.shape[-2] != generator.resolution:
        raise ValueError(
            f"images are {tuple(images.shape[-2:])}, this generator makes "
            f"{generator.resolution}x{generator.resolution}"
        )
    codes = _start(generator, space).expand(len(images), *[-1] * (1 + space.has_rows)).clone()
    codes.requires_grad_()
    optimizer = torch.optim.Adam([codes], lr=lr)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * _ramp(step / steps)
        with torch.enable_grad():
            mapped = codes if space.is_mapped else generator.map(codes)
            error = (generator.synthesize(mapped) - images).square().mean(dim=(1, 2, 3))
            (codes.grad,) = torch.autograd.grad(error.sum(), [codes])
        optimizer.step()
    found = codes.detach()
    return found if space.is_mapped else normalize_z(found)


@register("projection")
class Projection(InversionMethod):
    """Inverts by `project`, in the space that `output` names.

    `steps` and `lr` are as of `project`; no step leaves the start.


    Raises:
        ValueError: if steps is negative, lr not positive, or output another.
    """

    outputs = tuple(space.value for space in LatentSpace)

    def __init__(
        self, *, generator: Generator, steps: int = 500, lr: float = 0.1, output: str = "W+"
    ) -> None:
        super().__init__()
        if steps < 0 or lr <= 0:
            raise ValueError(f"{steps} steps with a learning rate of {lr}: expected 0 up, above 0")
        if output not in self.outputs:
            raise ValueError(f"output is {output!r}, Projection has {', '.join(self.outputs)}")
        self.generator = generator
        self.steps, self.lr, self.output = steps, lr, output

    @property
    def image_shape(self) -> tuple[int, int]:
        """The size of the generator's pictures."""
        return self.generator.resolution, self.generator.resolution

    def invert(self, images: Tensor) -> Inversion:
        """Searches codes; see `project`."""
        space = LatentSpace(self.output)
        with torch.inference_mode(False):  # gradients are wanted, whoever asks
            codes = project(
                self.generator, images.clone(), space=space, steps=self.steps, lr=self.lr
            )
        return Inversion(codes=broadcast_rows(codes, self.generator.num_codes), space=space)


def _start(generator: Generator, space: LatentSpace) -> Tensor:
    """The code that every search begins with, [1, D] or [1, L, D]."""
    if space.is_mapped:
        average = generator.w_average[None]
        return broadcast_rows(average, generator.num_codes) if space.has_rows else average
    rows = [generator.num_codes] if space.has_rows else []
    rng = torch.Generator().manual_seed(START_SEED)
    z = torch.randn(1, *rows, generator.z_dim, generator=rng)
    return normalize_z(z).to(generator.w_average)


def _ramp(done: float) -> float:
    """The learning-rate factor at a fraction of the steps (Karras et al. 2020, appendix D)."""
    fall = min(1.0, (1.0 - done) / 0.25)
    return (0.5 - 0.5 * math.cos(math.pi * fall)) * min(1.0, done / 0.05 + 1e-3)
