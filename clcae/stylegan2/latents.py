"""The latent spaces of StyleGAN2, and operations on their codes.

Z: Gaussian, one row a picture; only its direction matters. Z+: one row of Z a layer, each on its
own sphere (Revisiting Latent Space of GAN Inversion, WACV 2024). W: outputs of the mapping network.
W+: one row of W a layer (Abdal et al. 2019).
"""

from enum import StrEnum

import torch
from torch import Tensor


class LatentSpace(StrEnum):
    """Name of a latent space."""

    Z = "Z"
    Z_PLUS = "Z+"
    W = "W"
    W_PLUS = "W+"

    @property
    def has_rows(self) -> bool:
        """Whether a code has one row for each layer (Z+, W+)."""
        return self in (LatentSpace.Z_PLUS, LatentSpace.W_PLUS)

    @property
    def with_rows(self) -> "LatentSpace":
        """The space with one row for each layer: Z+ of Z, W+ of W."""
        return LatentSpace.W_PLUS if self.is_mapped else LatentSpace.Z_PLUS

    @property
    def is_mapped(self) -> bool:
        """Whether codes are outputs of the mapping network (W, W+), not its inputs (Z, Z+)."""
        return self in (LatentSpace.W, LatentSpace.W_PLUS)


def normalize_z(
    z: Tensor,  # [..., z_dim]
) -> Tensor:
    """Projects z onto the sphere of radius sqrt(z_dim), the first step of a mapping network."""
    return z * torch.rsqrt(z.square().mean(dim=-1, keepdim=True) + 1e-8)


def broadcast_rows(
    codes: Tensor,  # [N, D] or [N, L, D]
    num_rows: int,
) -> Tensor:
    """Repeats codes without rows for every layer: [N, num_rows, D]; codes with rows stay.

    Raises:
        ValueError: if the number of axes or rows is another.
    """
    if codes.ndim == 2:
        return codes[:, None].expand(-1, num_rows, -1)
    if codes.ndim != 3 or codes.shape[1] != num_rows:
        raise ValueError(
            f"codes have shape {tuple(codes.shape)}, expected [N, D] or [N, {num_rows}, D]"
        )
    return codes


def truncate(
    w: Tensor,  # [N, D] or [N, L, D]
    average: Tensor,  # [D]
    psi: float,
    *,
    num_rows: int | None = None,
) -> Tensor:
    """Truncates codes: average + psi * (w - average) (Karras et al. 2019, section B).

    psi = 1 changes nothing, 0 returns the average. `num_rows` first rows of W+ codes are truncated;
    None: all.

    Raises:
        ValueError: if `num_rows` is given for codes without rows.
    """
    if psi == 1.0:
        return w
    if num_rows is None:
        return torch.lerp(average, w, psi)
    if w.ndim != 3:
        raise ValueError(f"num_rows={num_rows} needs codes [N, L, D], got {tuple(w.shape)}")
    return torch.cat([torch.lerp(average, w[:, :num_rows], psi), w[:, num_rows:]], dim=1)
