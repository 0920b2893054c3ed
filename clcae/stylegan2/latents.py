"""The latent spaces of StyleGAN2 and what may be done to a code of each.

Z: Gaussian, one row a picture; the mapping network reads its direction only. Z+: one row of Z a
layer, each on its own sphere (Revisiting Latent Space of GAN Inversion, WACV 2024). W: the mapping
network's output. W+: one row of W a layer (Abdal et al. 2019).
"""

from enum import StrEnum

import torch
from torch import Tensor


class LatentSpace(StrEnum):
    """Where a code lives."""

    Z = "Z"
    Z_PLUS = "Z+"
    W = "W"
    W_PLUS = "W+"

    @property
    def has_rows(self) -> bool:
        """Whether every layer has a row of its own."""
        return self in (LatentSpace.Z_PLUS, LatentSpace.W_PLUS)

    @property
    def with_rows(self) -> "LatentSpace":
        """The space of the same codes with a row of their own for every layer."""
        return LatentSpace.W_PLUS if self.is_mapped else LatentSpace.Z_PLUS

    @property
    def is_mapped(self) -> bool:
        """Whether codes are outputs of the mapping network (W, W+), not its inputs (Z, Z+)."""
        return self in (LatentSpace.W, LatentSpace.W_PLUS)


def normalize_z(
    z: Tensor,  # [..., z_dim]
) -> Tensor:
    """Onto the sphere of radius sqrt(z_dim): the first step of every mapping network."""
    return z * torch.rsqrt(z.square().mean(dim=-1, keepdim=True) + 1e-8)


def broadcast_rows(
    codes: Tensor,  # [N, D] or [N, L, D]
    num_rows: int,
) -> Tensor:
    """One row a layer: [N, num_rows, D]; codes that have their rows already pass through.

    Raises:
        ValueError: another number of axes or rows.
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
    """Towards the average: average + psi * (w - average) (Karras et al. 2019, section B).

    Args:
        w: codes.
        average: the mean of W.
        psi: 1 changes nothing, 0 returns the average.
        num_rows: truncate only the first rows of W+ codes; None means all.

    Raises:
        ValueError: `num_rows` is given for codes without rows.
    """
    if psi == 1.0:
        return w
    if num_rows is None:
        return torch.lerp(average, w, psi)
    if w.ndim != 3:
        raise ValueError(f"num_rows={num_rows} needs codes [N, L, D], got {tuple(w.shape)}")
    return torch.cat([torch.lerp(average, w[:, :num_rows], psi), w[:, num_rows:]], dim=1)
