"""The canvas: pixel coordinates, outlines as signed distances, anti-aliased filling.

There is no supersampling: an outline is a signed distance, negative inside, and a pixel's coverage
is a ramp of that distance over one pixel. Most outlines are sums of functions of the row or of the
column alone ([N, 1, H, 1] and [N, 1, 1, W]), which cost next to nothing.

A length of 1 is a little more than half the picture's side; x is to the right and y down.
"""

import math

import torch
from torch import Tensor

# The view, around the origin: half its side, and how much lower its centre is.
VIEW = 0.90
VIEW_Y = 0.02


class Canvas:
    """A batch of pictures that is painted in place, with the coordinates of its pixels.

    Args:
        pixels: painted in place.
        x: the column's position, from left to right.
        y: the row's position, from top to bottom.
        pixel: the width of a pixel in these units.
    """

    def __init__(
        self,
        *,
        pixels: Tensor,  # [N, 3, H, W], in [0, 1]
        x: Tensor,  # [1, 1, 1, W]
        y: Tensor,  # [1, 1, H, 1]
        pixel: float,
    ) -> None:
        self.pixels = pixels
        self.x = x
        self.y = y
        self.pixel = pixel

    @classmethod
    def blank(cls, num_pictures: int, size: int) -> "Canvas":
        """Makes `num_pictures` black pictures of `size` by `size` pixels."""
        pixel = 2.0 * VIEW / size
        centres = (torch.arange(size, dtype=torch.float32) + 0.5) * pixel - VIEW
        return cls(
            pixels=torch.zeros(num_pictures, 3, size, size),
            x=centres.view(1, 1, 1, size),
            y=centres.view(1, 1, size, 1) + VIEW_Y,
            pixel=pixel,
        )

    def window(self, left: float, top: float, right: float, bottom: float) -> "Canvas":
        """Returns a view of a rectangle of a whole canvas."""
        x0, x1 = (
            max(0, math.floor((left + VIEW) / self.pixel)),
            math.ceil((right + VIEW) / self.pixel),
        )
        y0 = max(0, math.floor((top + VIEW - VIEW_Y) / self.pixel))
        y1 = math.ceil((bottom + VIEW - VIEW_Y) / self.pixel)
        return Canvas(
            pixels=self.pixels[:, :, y0:y1, x0:x1],
            x=self.x[..., x0:x1],
            y=self.y[:, :, y0:y1],
            pixel=self.pixel,
        )

    def pick(self, rows: Tensor) -> "Canvas":
        """Copies the pictures at `rows` onto a canvas of their own."""
        return Canvas(pixels=self.pixels[rows], x=self.x, y=self.y, pixel=self.pixel)

    def coverage(
        self,
        distance: Tensor,  # broadcastable to [N, 1, H, W]
        *,
        softness: float = 0.0,  # width of the ramp, where wider than a pixel
    ) -> Tensor:
        """Turns a signed distance into the covered part of each pixel, in [0, 1]."""
        return (distance * (-1.0 / max(self.pixel, softness))).add_(0.5).clamp_(0.0, 1.0)

    def paint(
        self,
        mask: Tensor,  # [N, 1, H, W], in [0, 1]
        colour: Tensor,  # broadcastable to [N, 3, H, W]
    ) -> None:
        """Blends a colour over the pictures by a mask."""
        self.pixels.lerp_(colour, mask)

    def fill(
        self,
        distance: Tensor,  # [N, 1, H, W]
        colour: Tensor,  # broadcastable to [N, 3, H, W]
        *,
        opacity: Tensor | float = 1.0,  # [N, 1, 1, 1]
        softness: float = 0.0,
    ) -> None:
        """Paints the inside of an outline."""
        mask = self.coverage(distance, softness=softness)
        self.paint(
            mask if isinstance(opacity, float) and opacity == 1.0 else mask * opacity, colour
        )


def profile_distance(
    canvas: Canvas,
    *,
    centre: tuple[Tensor, Tensor],  # [N, 1, H or 1, 1] and [N, 1, 1, 1]
    half_width: Tensor,  # [N, 1, 1, 1]
    upper: Tensor,  # [N, 1, 1, 1], centre to top
    lower: Tensor,  # [N, 1, 1, 1], centre to bottom
    taper: Tensor | float = 0.0,  # part of the width lost at the bottom
    exponent: Tensor | float = 2.0,  # 2 is an ellipse, more is squarer
) -> Tensor:
    """Computes the signed distance to an egg: an ellipse above, a tapered superellipse below.

    Returns [N, 1, H, W], exact to first order at the edge.
    """
    step = canvas.y - centre[1]
    above = (step / -upper).clamp_min_(0.0)
    below = (step / lower).clamp_min_(0.0)
    width = half_width * (1.0 - taper * below.clamp_max(1.2).square())
    level = above.square() + below**exponent - 1.0
    rise = 2.0 * above / upper + exponent * below ** (exponent - 1.0) / lower
    narrowing = 4.0 * taper * below / lower * half_width / width
    across = ((canvas.x - centre[0]) * (1.0 / width)).square_()
    slope = (across * narrowing).add_(rise).square_().addcmul_(across, 4.0 / width.square())
    return across.add_(level).mul_(slope.add_(1e-4).rsqrt_())


def ellipse_distance(
    x: Tensor,  # offset from the centre
    y: Tensor,  # offset from the centre
    radius_x: Tensor | float,
    radius_y: Tensor | float,
) -> Tensor:
    """Computes the signed distance to an ellipse, exact to first order at its edge."""
    across = (x / radius_x).square()
    along = (y / radius_y).square()
    slope = 2.0 * (across / radius_x**2 + along / radius_y**2 + 1e-6).sqrt_()
    return (across + along).sub_(1.0).div_(slope)


def smooth_max(first: Tensor, second: Tensor, width: float) -> Tensor:
    """Intersects two outlines, with a corner rounded over `width`."""
    corner = (width - (first - second).abs_()).clamp_min_(0.0)
    return torch.maximum(first, second).addcmul_(corner, corner, value=0.25 / width)


def smooth_step(values: Tensor, low: float, high: float) -> Tensor:
    """Rises smoothly from 0 at `low` to 1 at `high`."""
    t = ((values - low) / (high - low)).clamp(0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def by_side(canvas: Canvas, left: Tensor, right: Tensor, middle: Tensor) -> Tensor:
    """Selects `left` or `right` by the side of `middle` on which a column lies, [N, 1, 1, W]."""
    return torch.where(canvas.x < middle, left, right)
