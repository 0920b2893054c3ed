"""Pasting an edited crop back into its photograph. No official file: the papers show crops.

Towards the crop's edge the pasted picture fades into the photograph, which keeps every pixel
outside the quad. There are two ways:

- The crop itself is pasted. The photograph is then as sharp as the crop within the quad: softer if
  it had more pixels.
- With a reference, only the difference between the crop and the reference is pasted, and the
  photograph keeps its own detail, noise and the border that cropping blurs. The reference is the
  crop without the edit: as it was cut out, or the inversion before the edit, whose errors then stay
  out of the photograph. Where an edit moves edges (a turned head), fine detail of the old edges is
  left behind: take the first way.
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
    """Pastes a crop of any size back to where it was cut out.

    Args:
        photo: the photograph.
        crop: the edited crop.
        quad: its corners in the photograph: top left, bottom left, bottom right, top right.
        reference: the crop without the edit; only the difference is pasted. None pastes the crop.
        seam: width of the fading within the crop's edge, as a share of its side, from 0 (a hard
            edge) to 0.5.

    Returns:
        A new tensor [3, H, W], in [-1, 1] wherever it changed.

    Raises:
        ValueError: if a shape is wrong, the quad is no square, or the seam is out of range.
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
    """Finds the rows and columns of the photograph that the quad touches."""
    (left, top), (right, bottom) = quad.amin(0).tolist(), quad.amax(0).tolist()
    rows = slice(max(math.floor(top), 0), min(max(math.ceil(bottom) + 1, 0), height))
    columns = slice(max(math.floor(left), 0), min(max(math.ceil(right) + 1, 0), width))
    return rows, columns


def _in_crop(quad: Tensor, rows: slice, columns: slice) -> Tensor:
    """Maps pixels of the photograph into the crop: [H, W, 2], from 0 to 1 within it."""
    y = torch.arange(rows.start, rows.stop, dtype=torch.float64)
    x = torch.arange(columns.start, columns.stop, dtype=torch.float64)
    points = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1) - quad[0]
    edges = torch.stack([quad[3] - quad[0], quad[1] - quad[0]])  # of u and of v
    return points @ torch.linalg.inv(edges)


def _fading(
    places: Tensor,  # [H, W, 2]
    seam: float,
) -> Tensor:
    """Computes the crop's weight [H, W]: 0 outside, 1 inside, smooth over the seam."""
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
    """Resamples the crop at the photograph's pixels, [3, H, W]; its border repeats outside."""
    # Resize to the photograph's resolution first: grid_sample alone aliases where that is lower;
    # where it is higher, its filter leaves ripples along straight lines.
    down = min(max(round(float((quad[1] - quad[0]).norm())), 1), LARGEST_CROP)
    across = min(max(round(quad_side(quad)), 1), LARGEST_CROP)
    crop = F.interpolate(crop[None], size=(down, across), mode="bicubic", antialias=True)[0]
    grid = (places * 2 - 1).to(crop)[None]
    return F.grid_sample(
        crop[None], grid, mode="bicubic", padding_mode="border", align_corners=False
    )[0]
