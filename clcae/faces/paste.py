"""An edited crop back into the photograph it was cut out of.

No official file: the papers show crops. The quad is undone exactly, and towards the crop's edge the
pasted picture fades into the photograph, of which no pixel outside the quad changes.

There are two ways, and both have their use:

- The crop itself is pasted. Within the quad the photograph is then as sharp as the crop, softer
  where the photograph had more pixels than it.
- With a reference, only the difference between the crop and it is pasted, and the photograph keeps
  its own detail, noise and the border that cropping blurs. The reference is what the crop would be
  without the edit: the crop as it was cut out, or the inversion before the edit, whose errors then
  stay out of the photograph. A crop equal to the reference changes nothing at all. Where an edit
  moves edges (a turned head), fine detail of the old ones is left behind: take the first way.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from clcae.faces.crop import checked_quad, quad_side

LARGEST_CROP = 8192  # pixels to which a crop is enlarged; quads beyond are resampled once more
SEAM = 0.1  # width of the fading, of the crop's side


def paste_back(
    photo: Tensor,  # [3, H, W], in [-1, 1]
    crop: Tensor,  # [3, S, S], in [-1, 1]
    quad: Tensor,  # [4, 2]
    *,
    reference: Tensor | None = None,  # [3, S, S], in [-1, 1]
    seam: float = SEAM,
) -> Tensor:
    """Puts a crop back where it was cut out.

    Args:
        photo: The photograph, in [-1, 1].
        crop: The edited crop in [-1, 1], of any size.
        quad: Its corners in the photograph: top left, bottom left, bottom right, top right.
        reference: The crop without the edit, of which the crop then brings the difference only;
            None pastes the crop itself.
        seam: Width of the fading within the crop's edge, as a share of its side, from 0 (a hard
            edge) to 0.5.

    Returns:
        The photograph [3, H, W], a new tensor, in [-1, 1] wherever it changed.

    Raises:
        ValueError: A shape is another one, the quad is no square, or the seam is out of range.
    """
    quad = checked_quad(quad)
    for name, image in (("photo", photo), ("crop", crop)):
        if image.ndim != 3 or image.shape[0] != 3:
            raise ValueError(f"{name} is {tuple(image.shape)}: expected one image [3, H, W]")
    if reference is not None and reference.shape != crop.shape:
        raise ValueError(
            f"reference is {tuple(reference.shape)}: expected {tuple(crop.shape)} as the crop"
        )
    if not 0 <= seam <= 0.5:
        raise ValueError(f"seam is {seam}: expected a share of the crop's side, 0 to 0.5")
    result = photo.clone()
    rows, columns = _covered(quad, *photo.shape[-2:])
    patch = result[:, rows, columns]  # a view
    if patch.numel() == 0:
        return result
    places = _in_crop(quad, rows, columns)
    weight = _fading(places, seam).to(photo)
    crop = crop.to(photo)
    if reference is None:
        change = _resampled(crop, quad, places) - patch
    else:
        change = _resampled(crop - reference.to(photo), quad, places)
    changed = (patch + weight * change).clamp(-1, 1)
    patch.copy_(torch.where(weight > 0, changed, patch))
    return result


def _covered(quad: Tensor, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the photograph that the quad touches."""
    (left, top), (right, bottom) = quad.amin(0).tolist(), quad.amax(0).tolist()
    rows = slice(max(math.floor(top), 0), min(max(math.ceil(bottom) + 1, 0), height))
    columns = slice(max(math.floor(left), 0), min(max(math.ceil(right) + 1, 0), width))
    return rows, columns


def _in_crop(quad: Tensor, rows: slice, columns: slice) -> Tensor:
    """Where pixels of the photograph lie in the crop: [H, W, 2], from 0 to 1 within it."""
    y = torch.arange(rows.start, rows.stop, dtype=torch.float64)
    x = torch.arange(columns.start, columns.stop, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1) - quad[0]
    edges = torch.stack([quad[3] - quad[0], quad[1] - quad[0]])  # of u and of v
    return points @ torch.linalg.inv(edges)


def _fading(
    places: Tensor,  # [H, W, 2]
    seam: float,
) -> Tensor:
    """Weight of the crop [H, W]: 0 outside, 1 inside, smooth over the seam."""
    inwards = torch.minimum(places, 1 - places).amin(dim=-1)
    if seam == 0:
        return (inwards >= 0).double()
    share = (inwards / seam).clamp(0, 1)
    return share**2 * (3 - 2 * share)


def _resampled(
    crop: Tensor,  # [3, S, S]
    quad: Tensor,
    places: Tensor,  # [H, W, 2]
) -> Tensor:
    """The crop at the photograph's pixels, [3, H, W]; its border repeated outside."""
    # First to the photograph's own pixels: without this, aliasing where they are fewer, and where
    # they are more, ripples by the filter of grid_sample, which cannot follow a straight line.
    down = min(max(round(float((quad[1] - quad[0]).norm())), 1), LARGEST_CROP)
    across = min(max(round(quad_side(quad)), 1), LARGEST_CROP)
    crop = F.interpolate(crop[None], size=(down, across), mode="bicubic", antialias=True)[0]
    grid = (places * 2 - 1).to(crop)[None]
    return F.grid_sample(
        crop[None], grid, mode="bicubic", padding_mode="border", align_corners=False
    )[0]
