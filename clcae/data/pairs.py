"""Pairs of a generator's own images and the codes that made them, from which the aligner learns."""

from typing import Literal, Protocol

import torch
from torch import Tensor


class PairGenerator(Protocol):
    """What a generator has to offer to make pairs."""

    z_dim: int

    def map(
        self,
        z: Tensor,  # [N, z_dim]
        *,
        truncation: float = 1.0,
    ) -> Tensor:
        """Codes w [N, w_dim]."""
        ...

    def synthesize(
        self,
        codes: Tensor,  # [N, w_dim]
        *,
        noise: Literal["random"],
    ) -> Tensor:
        """Images [N, 3, H, W], nominally in [-1, 1]."""
        ...


@torch.no_grad()
def generated_pairs(
    generator: PairGenerator,
    *,
    count: int,
    rng: torch.Generator,
    truncation: float = 1.0,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Draw codes and the images the generator makes of them, with random noise maps.

    Everything drawn follows from the state of `rng`, the noise maps included; the global random
    state is left as it was.

    Args:
        generator: The generator, on `device`.
        count: Number N of pairs, drawn as one batch.
        rng: Source of all draws, on the CPU.
        truncation: Factor by which w is drawn towards the mean code; 1 leaves it.
        device: Where the generator is.

    Returns:
        Images [N, 3, H, W] clamped to [-1, 1] as a file would hold them, and w [N, w_dim], both on
        `device`.
    """
    z = torch.randn(count, generator.z_dim, generator=rng).to(device)
    noise_seed = int(torch.randint(2**62, (), generator=rng))
    w = generator.map(z, truncation=truncation)
    # Noise maps come from the global state of the device, which is borrowed for the synthesis.
    with torch.random.fork_rng(devices=[w.device] if w.is_cuda else []):
        if w.is_cuda:
            with torch.cuda.device(w.device):
                torch.cuda.manual_seed(noise_seed)
        else:
            torch.default_generator.manual_seed(noise_seed)
        images = generator.synthesize(w, noise="random")
    return images.clamp(-1, 1), w
