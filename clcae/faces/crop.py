"""The crop of FFHQ: an upright square placed by the eyes and the mouth.

Karras et al. 2019 (A Style-Based Generator Architecture), appendix A; the recipe is that of
`recreate_aligned_images` in NVlabs/ffhq-dataset. Deviations: the recipe takes the 68 points of
dlib, an eye as the mean of its six, the mouth as the mean of its two outer corners; a detector of
five points gives the pupils', and its crop lies a little elsewhere. Resampling keeps floating
point, is bicubic with antialiasing where the recipe is bilinear and Lanczos, which is a little
sharper, takes up to four by four points for a pixel at every size (the recipe: at 1024), and keeps
the half pixel that the recipe loses when it shrinks.

A quad is the crop's corners [4, 2] in the picture, top left, bottom left, bottom right, top right,
in pixels with the centre of the top left pixel at (0, 0).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SHIFT = 0.1  # of the way from the eyes to the mouth, from the eyes to the crop's centre
EYE_SCALE, MOUTH_SCALE = 2.0, 1.8  # half the crop's side, in these two distances
BORDER = 0.1  # kept around the crop, of its side
PADDING = 0.3  # added where the crop leaves the picture, of its side
BLUR = 0.02  # standard deviation of the blur there, of its side
MOST_POINTS = 4  # taken across a pixel of the crop
SMALLEST_CROP = 48.0  # pixels of the picture; smaller faces are tiny
ALIGNED = 0.1  # how far the corners of an aligned picture may be off, of its side


def ffhq_quad(
    landmarks: Tensor,  # [5, 2] pixels: eyes, nose, corners of the mouth
) -> Tensor:
    """Computes the quad [4, 2] of the FFHQ crop: a square turned with the head.

    It may leave the picture; float64 on the CPU. The nose plays no part.

    Raises:
        ValueError: if landmarks are no five finite points, or all are one.
    """
    points = checked_landmarks(landmarks)
    eyes, mouth = points[:2].mean(0), points[3:].mean(0)
    across, down = points[1] - points[0], mouth - eyes
    x = across - _quarter_turn(down)
    if float(x.norm()) < 1e-6:
        raise ValueError(f"landmarks {points.tolist()} show no face that could be upright")
    x = x / x.norm() * max(float(across.norm()) * EYE_SCALE, float(down.norm()) * MOUTH_SCALE)
    y = _quarter_turn(x)
    centre = eyes + down * SHIFT
    return torch.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])


def checked_landmarks(landmarks: Tensor) -> Tensor:
    """Returns landmarks in float64. Raises ValueError if they are no five finite points."""
    points = torch.as_tensor(landmarks).detach().double().cpu()
    if points.shape != (5, 2) or not torch.isfinite(points).all():
        raise ValueError(f"landmarks are {points.tolist()}: expected five finite points (x, y)")
    return points


def picture_quad(height: int, width: int) -> Tensor:
    """Returns the quad [4, 2] of a whole picture."""
    right, bottom = width - 0.5, height - 0.5
    corners = [[-0.5, -0.5], [-0.5, bottom], [right, bottom], [right, -0.5]]
    return torch.tensor(corners, dtype=torch.float64)


def is_aligned(
    quad: Tensor,  # [4, 2]
    height: int,
    width: int,
) -> bool:
    """Tests whether a picture is an FFHQ crop already.

    It is if it is square and every corner of its face's quad lies within 10 % of the side of the
    picture's own corner.
    """
    if height != width:
        return False
    distances = (quad.double().cpu() - picture_quad(height, width)).norm(dim=1)
    return bool(distances.max() <= ALIGNED * width)


def quad_side(
    quad: Tensor,  # [4, 2]
) -> float:
    """Computes the length of a quad's upper edge, in pixels of the picture."""
    return float((quad[3] - quad[0]).norm())


def check_size(
    quad: Tensor,  # [4, 2]
) -> None:
    """Raises ValueError for a tiny face, whose crop takes fewer than 48 pixels of the picture."""
    side = quad_side(quad)
    if side < SMALLEST_CROP:
        raise ValueError(
            f"a tiny face: its crop takes {side:.0f} pixels of the picture, expected at least "
            f"{SMALLEST_CROP:.0f}"
        )


def crop_quad(
    image: Tensor,  # [3, H, W], in [-1, 1]
    quad: Tensor,  # [4, 2]
    size: int,
) -> Tensor:
    """Cuts a quad out of a picture, upright: [3, size, size] on the picture's device.

    Where the quad leaves the picture, or nearly does, the picture is mirrored at its borders; the
    mirrored part is blurred outwards and fades into the picture's median colour.

    Raises:
        ValueError: if a shape or the size is wrong, or the quad is no square or lies outside the
            picture.
    """
    quad = checked_quad(quad)
    check_image(image, size)
    image, quad = _cut_out(image, quad)
    image, quad = shrunk(image, quad, size)
    image, quad = _padded(image, quad)
    return sample(image, quad, size)


def check_image(image: Tensor, size: int) -> None:
    """Raises ValueError for anything but an image [3, H, W] and a positive size."""
    if image.ndim != 3 or image.shape[0] != 3 or size < 1:
        raise ValueError(f"image is {tuple(image.shape)} and size {size}: expected [3, H, W], >= 1")


def checked_quad(quad: Tensor) -> Tensor:
    """Returns a quad [4, 2] in float64 on the CPU.

    Raises:
        ValueError: if it is no parallelogram of four finite corners with an area.
    """
    quad = torch.as_tensor(quad).detach().double().cpu()
    if quad.shape != (4, 2) or not torch.isfinite(quad).all():
        raise ValueError(f"quad is {quad.tolist()}: expected four finite corners (x, y)")
    right, down = quad[3] - quad[0], quad[1] - quad[0]
    area = float(right[0] * down[1] - right[1] * down[0])
    if area <= 0 or float((quad[0] + quad[2] - quad[1] - quad[3]).norm()) > 0.01 * quad_side(quad):
        raise ValueError(
            f"quad is {quad.tolist()}: expected a square as top left, bottom left, bottom right, "
            "top right"
        )
    return quad


def shrunk(
    image: Tensor,  # [3, H, W]
    quad: Tensor,  # [4, 2]
    size: int,
) -> tuple[Tensor, Tensor]:
    """Scales a picture down by a whole number if the crop is much smaller than its quad.

    Returns:
        The picture and the quad in it. A quad of four times the size or more ends up at two to
        four times the size; a smaller one is unchanged.
    """
    divisor = int(quad_side(quad) / size / 2)
    if divisor <= 1:
        return image, quad
    height, width = image.shape[-2:]
    smaller = (max(round(height / divisor), 1), max(round(width / divisor), 1))
    scale = torch.tensor([smaller[1] / width, smaller[0] / height], dtype=torch.float64)
    image = F.interpolate(image[None], size=smaller, mode="bicubic", antialias=True)[0]
    return image.clamp(-1, 1), (quad + 0.5) * scale - 0.5


def sample(
    image: Tensor,  # [3, H, W], in [-1, 1]
    quad: Tensor,  # [4, 2]
    size: int,
) -> Tensor:
    """Resamples a quad to [3, size, size]; black outside the picture.

    Takes points half a pixel of the picture apart, but no more than four by four for a pixel of the
    crop, and averages them by a bicubic filter.
    """
    height, width = image.shape[-2:]
    num_points = size * min(max(math.ceil(2 * quad_side(quad) / size), 1), MOST_POINTS)
    steps = (torch.arange(num_points, dtype=torch.float64) + 0.5) / num_points
    extent = torch.tensor([width, height], dtype=torch.float64)
    # Coordinates of grid_sample: -1 and 1 are the picture's outer edges.
    corner, below, _, beside = (quad + 0.5) * 2 / extent - 1
    rows = corner + steps[:, None] * (below - corner)
    columns = steps[:, None] * (beside - corner)
    grid = rows.float()[:, None].to(image.device) + columns.float()[None].to(image.device)
    # Shifted, because grid_sample fills the outside with 0.
    lifted = (image + 1)[None].float()
    crop = F.grid_sample(lifted, grid[None], mode="bicubic", align_corners=False) - 1
    if num_points > size:
        crop = F.interpolate(crop, size=(size, size), mode="bicubic", antialias=True)
    return crop[0].clamp(-1, 1)


def _quarter_turn(vector: Tensor) -> Tensor:
    """Turns (x, y) to (-y, x): clockwise as seen in a picture."""
    return torch.stack([-vector[1], vector[0]])


def _cut_out(image: Tensor, quad: Tensor) -> tuple[Tensor, Tensor]:
    """Cuts the picture to the quad and the border that blending needs."""
    height, width = image.shape[-2:]
    border = _border(quad)
    left, top = (math.floor(v) - border for v in quad.amin(0).tolist())
    right, bottom = (math.ceil(v) + border for v in quad.amax(0).tolist())
    if right <= border or bottom <= border or left >= width - border or top >= height - border:
        raise ValueError(
            f"quad {quad.round(decimals=1).tolist()} lies outside the picture of "
            f"{width} x {height} pixels"
        )
    left, top = max(left, 0), max(top, 0)
    return image[:, top:bottom, left:right], quad - torch.tensor([left, top], dtype=torch.float64)


def _border(quad: Tensor) -> int:
    return max(round(quad_side(quad) * BORDER), 3)


def _padded(image: Tensor, quad: Tensor) -> tuple[Tensor, Tensor]:
    """Mirrors the picture beyond its borders and blends it there, if the quad needs it."""
    height, width = image.shape[-2:]
    border, length = _border(quad), quad_side(quad)
    low, high = quad.amin(0).tolist(), quad.amax(0).tolist()
    needed = [
        max(-math.floor(low[0]) + border, 0),
        max(-math.floor(low[1]) + border, 0),
        max(math.ceil(high[0]) - width + border, 0),
        max(math.ceil(high[1]) - height + border, 0),
    ]
    if max(needed) <= border - 4:
        return image, quad
    left, top, right, bottom = (max(pixels, round(length * PADDING)) for pixels in needed)
    rows = _mirrored(height, top, bottom).to(image.device)
    columns = _mirrored(width, left, right).to(image.device)
    image = image[:, rows][:, :, columns]
    # 0 at the border of the original and 1 at that of the copy; negative within the original.
    mask = torch.maximum(
        _beyond(image.shape[-1], left, right)[None, :],
        _beyond(image.shape[-2], top, bottom)[:, None],
    ).to(image)
    blurred = gaussian_blur(image, length * BLUR)
    image = image + (blurred - image) * (mask * 3 + 1).clamp(0, 1)
    median = image.flatten(1).median(dim=1).values[:, None, None]
    image = image + (median - image) * mask.clamp(0, 1)
    return image, quad + torch.tensor([left, top], dtype=torch.float64)


def _mirrored(length: int, before: int, after: int) -> Tensor:
    """Indices that continue `length` pixels by repeated reflection."""
    if length == 1:
        return torch.zeros(1 + before + after, dtype=torch.int64)
    steps = torch.arange(-before, length + after) % (2 * length - 2)
    return torch.minimum(steps, 2 * length - 2 - steps)


def _beyond(length: int, before: int, after: int) -> Tensor:
    """1 minus the distance to the nearer end of a padded line, in units of its padding."""
    steps = torch.arange(length, dtype=torch.float32)
    return 1 - torch.minimum(steps / before, (length - 1 - steps) / after)


def gaussian_blur(
    image: Tensor,  # [3, H, W]
    deviation: float,
) -> Tensor:
    """Blurs with a Gaussian of `deviation` pixels, mirrored at the borders.

    From 8 pixels on the picture is blurred at a fraction of its size.
    """
    height, width = image.shape[-2:]
    divisor = max(int(deviation / 4), 1)
    small = image[None]
    if divisor > 1:
        size = (-(-height // divisor), -(-width // divisor))
        small = F.interpolate(small, size=size, mode="bilinear", antialias=True)
        # The triangle filters of both resizings blur too.
        deviation = math.sqrt((deviation / divisor) ** 2 - 1 / 3)
    reach = max(math.ceil(4 * deviation), 1)
    steps = torch.arange(-reach, reach + 1, dtype=torch.float32, device=image.device)
    kernel = torch.exp(-(steps**2) / (2 * max(deviation, 1e-3) ** 2))
    kernel = (kernel / kernel.sum()).to(image.dtype).repeat(3, 1, 1, 1)
    rows = _mirrored(small.shape[-2], reach, reach).to(image.device)
    columns = _mirrored(small.shape[-1], reach, reach).to(image.device)
    small = F.conv2d(small[:, :, rows], kernel.transpose(2, 3), groups=3)
    small = F.conv2d(small[:, :, :, columns], kernel, groups=3)
    if divisor == 1:
        return small[0]
    return F.interpolate(small, size=(height, width), mode="bilinear", align_corners=False)[0]
