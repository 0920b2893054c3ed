"""Moves of Z and Z+, whose rows lie on spheres: a walk along a vector, the way between two codes.

F/Z+ (arXiv 2307.08995, WACV 2024) edits Z+ by a walk on the product of spheres: its
`edit_interfacegan_zp.py` adds a thousandth of the shift and brings every row back to the sphere of
radius sqrt(D), a thousand times. `walk_in_steps` is that loop. `walk` is its limit for more and
more steps, in closed form: the flow dz/ds = b - <z, b> z / D of a row z along its row b of the
shift, for s from 0 to 1. The flow stays in the plane of z and b, and the angle between them obeys

    tan(angle / 2) = tan(angle at the start / 2) * exp(-|b| s / sqrt(D)),

since its rate is -|b| sin(angle) / sqrt(D). However far the shift, a row comes to rest at the point
of the sphere that lies along b.

`walk` is what edits use: the way back returns, edits do not depend on how they are divided, and it
costs one step. At the official strength 2 the two differ by 2e-6 in float64, where entries deviate
by 1; in float32, as the official code runs, the thousand sums of the loop round off 1.3e-4.
Deviations: a row whose shift is zero stays as it is, bit for bit; the official loop puts it on the
sphere, which changes no picture. The official branch for codes of one row shortens its distance in
every step and so depends on the number of steps; here codes of Z move as those of Z+.
"""

import math

import torch
from torch import Tensor

from clcae.stylegan2.latents import normalize_z

STEPS = 1000  # of `edit_interfacegan_zp.py`
# Beyond it, every row in float32 is at rest, and exp(-2 * FARTHEST) is still a normal float32.
FARTHEST = 40.0


def walk(
    z: Tensor,  # [..., D], of any length but 0
    shift: Tensor,  # [..., D], of any length
) -> Tensor:
    """Moves rows along the sphere of radius sqrt(D), by the flow of their rows of the shift.

    The shift need neither be tangential nor of unit length. A walk by the negative shift returns;
    rounding grows by exp(|shift| / sqrt(D)) on the way back. Walks along one vector add up.

    Returns:
        [..., D] in the type of z; rows whose shift is zero as they are, all others on the sphere.
    """
    radius = math.sqrt(z.shape[-1])
    exact = torch.promote_types(z.dtype, torch.float32)
    start = normalize_z(z.to(exact)) / radius
    # Measured in parts of its largest entry, whose square neither overflows nor vanishes.
    largest = shift.to(exact).abs().amax(dim=-1, keepdim=True)
    parts = shift.to(exact) / torch.where(largest > 0, largest, 1.0)
    norm = torch.linalg.vector_norm(parts, dim=-1, keepdim=True)
    pole = parts / torch.where(norm > 0, norm, 1.0)
    distance = (largest / radius * norm).clamp_max(FARTHEST)
    # 1 + cos and 1 - cos of the angle at the start, without cancellation near the poles.
    near = (start + pole).square().sum(dim=-1, keepdim=True) / 2
    far = (start - pole).square().sum(dim=-1, keepdim=True) / 2
    # All over exp(distance), so that nothing overflows: 1 + cos and 1 - cos grow and shrink by it.
    far = far * torch.exp(-2 * distance)
    total = near + far
    across = start - pole * (start * pole).sum(dim=-1, keepdim=True)
    moved = pole * ((near - far) / total) + across * (2 * torch.exp(-distance) / total)
    return torch.where(largest > 0, normalize_z(moved * radius), z.to(exact)).to(z.dtype)


def walk_in_steps(
    z: Tensor,  # [..., D]
    shift: Tensor,  # [..., D]
    *,
    steps: int = STEPS,
) -> Tensor:
    """Moves rows as `walk` by small steps, each of which ends on the sphere: the official loop.

    One step is how `edit_ganspace_zp.py` moves, and what the mapping network makes of a sum.

    Returns:
        [..., D] in the type of z; rows whose shift is zero as they are, all others on the sphere.

    Raises:
        ValueError: if there are no steps.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}, expected 1 or more")
    exact = torch.promote_types(z.dtype, torch.float32)
    moved, step = z.to(exact), shift.to(exact) / steps
    for _ in range(steps):
        moved = normalize_z(moved + step)
    still = (shift == 0).all(dim=-1, keepdim=True)
    return torch.where(still, z.to(exact), moved).to(z.dtype)


def slerp(
    first: Tensor,  # [..., D], of any length but 0
    second: Tensor,  # [..., D]
    share: float,  # 0 is the first code, 1 the second
) -> Tensor:
    """Interpolates rows along great circles of the sphere of radius sqrt(D).

    `interpolate_zp.py` of F/Z+. Angles come from both chords, so that equal rows stay, where the
    official form divides by zero.

    Raises:
        ValueError: if rows lie opposite each other, between which there is no shortest way.
    """
    exact = torch.promote_types(first.dtype, torch.float32)
    one, other = normalize_z(first.to(exact)), normalize_z(second.to(exact))
    difference, total = (
        torch.linalg.vector_norm(chord, dim=-1, keepdim=True)
        for chord in (other - one, other + one)
    )
    if bool((total < 1e-4 * difference).any()):
        raise ValueError("rows lie opposite each other on the sphere: no way between is shortest")
    angle = 2 * torch.atan2(difference, total)
    # sin(share * angle) / sin(angle), which is `share` where the angle is zero.
    weight_one, weight_other = (
        part * torch.sinc(part * angle / math.pi) / torch.sinc(angle / math.pi)
        for part in (1 - share, share)
    )
    return normalize_z(weight_one * one + weight_other * other).to(first.dtype)
