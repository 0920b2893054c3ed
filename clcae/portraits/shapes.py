"""What portraits are drawn with: a canvas, outlines, colours and the measures of the sitter.

There is no supersampling: an outline is a signed distance, negative inside, and a pixel's coverage
is a ramp of that distance over one pixel. Most outlines are sums of functions of the row or of the
column alone ([N, 1, H, 1] and [N, 1, 1, W]), which cost next to nothing.

A length of 1 is a little more than half the picture's side; x is to the right and y down. The head
is an egg near the origin whose features sit on a sphere turned by the yaw, so that the far eye
narrows and the nose moves most.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from clcae.portraits.parameters import ATTRIBUTES, DETAILS, PortraitParameters

# The view, around the origin: half its side, and how much lower its centre is.
VIEW = 0.90
VIEW_Y = 0.02

HEAD_Y = -0.07
MAX_YAW = 0.50  # radians

# Palettes, in bytes: deep to fair, black to platinum, dark brown to blue.
SKIN = (
    *((86, 54, 42), (118, 76, 56), (152, 100, 70), (190, 134, 98)),
    *((222, 170, 132), (240, 198, 166), (253, 222, 200)),
)
HAIR = (
    *((32, 27, 36), (54, 38, 34), (82, 54, 38), (116, 74, 46), (142, 86, 54)),
    *((172, 120, 74), (202, 160, 100), (236, 204, 134), (243, 228, 196)),
)
EYES = ((62, 38, 26), (104, 66, 36), (132, 108, 52), (86, 130, 82), (96, 134, 150), (70, 128, 196))


class Canvas:
    """Pictures under the brush, with the coordinates of their pixels.

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
        """Opens a window on the pixels of a whole canvas."""
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
        """Lays a colour over the pictures where the mask says so."""
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
    """Distance to an upright egg, an ellipse above and a tapered superellipse below.

    Returns:
        Signed distance [N, 1, H, W], exact to first order at the edge.
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
    """Distance to an ellipse, exact to first order at its edge."""
    across = (x / radius_x).square()
    along = (y / radius_y).square()
    slope = 2.0 * (across / radius_x**2 + along / radius_y**2 + 1e-6).sqrt_()
    return (across + along).sub_(1.0).div_(slope)


def smooth_max(first: Tensor, second: Tensor, width: float) -> Tensor:
    """Joins two outlines by their intersection, with a corner rounded over `width`."""
    corner = (width - (first - second).abs_()).clamp_min_(0.0)
    return torch.maximum(first, second).addcmul_(corner, corner, value=0.25 / width)


def smooth_step(values: Tensor, low: float, high: float) -> Tensor:
    """Rises smoothly from 0 at `low` to 1 at `high`."""
    t = ((values - low) / (high - low)).clamp(0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def rgb(red: float, green: float, blue: float) -> Tensor:
    """Gives one colour, from bytes, as [1, 3, 1, 1] in [0, 1]."""
    return torch.tensor([red, green, blue], dtype=torch.float32).view(1, 3, 1, 1) / 255.0


def palette(
    position: Tensor,  # [N, 1, 1, 1], in [0, 1]
    stops: Sequence[tuple[int, int, int]],
) -> Tensor:
    """Reads a palette, linearly between its stops; returns [N, 3, 1, 1]."""
    table = torch.tensor(stops, dtype=torch.float32) / 255.0
    scaled = position.flatten().clamp(0.0, 1.0) * (len(stops) - 1)
    below = scaled.floor().clamp_max(len(stops) - 2)
    index = below.long()
    return torch.lerp(table[index], table[index + 1], (scaled - below)[:, None])[..., None, None]


def hue_colour(
    hue: Tensor,  # [N, 1, 1, 1], in turns
    saturation: Tensor | float,
    light: Tensor | float,  # the brightest channel, in [0, 1]
) -> Tensor:
    """Turns a hue into a colour; returns [N, 3, 1, 1]."""
    offsets = torch.tensor([0.0, -1.0 / 3.0, 1.0 / 3.0]).view(1, 3, 1, 1)
    # A cosine wheel has softer yellows and cyans than the hexagon of HSV, and no corners.
    wheel = 0.5 + 0.5 * torch.cos(2.0 * math.pi * (hue + offsets))
    return light * (1.0 - saturation * (1.0 - wheel))


@dataclass(frozen=True)
class Sitter:
    """What several layers need of each portrait.

    Every tensor is [N, 1, 1, 1], a colour is [N, 3, 1, 1] and an outline [N, 1, H, W].
    """

    values: dict[str, Tensor]  # appearance parameters and attributes, by name
    details: dict[str, Tensor]  # presence, by name
    outlines: dict[str, Tensor]  # distances by name, once measured
    turn: Tensor  # sine of the yaw's angle
    face_x: Tensor  # centre of the face's outline
    tilt: Tensor  # fall of the features by pitch
    eye_y: Tensor
    eye_x: tuple[Tensor, Tensor]  # left and right in the picture
    eye_width: tuple[Tensor, Tensor]  # half widths
    eye_rise: Tensor  # half height of an open eye
    nose: tuple[Tensor, Tensor]  # its tip
    mouth: tuple[Tensor, Tensor]
    skin: Tensor
    hair: Tensor

    def across(self, u: float | Tensor, depth: float = 1.0) -> tuple[Tensor, Tensor]:
        """Places a point of the face, u half widths from its middle; returns x and its width."""
        return _turned(self.values, self.turn, self.face_x, u, depth)

    def pick(self, rows: Tensor) -> "Sitter":
        """Takes the portraits at `rows`."""
        picked: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, dict):
                picked[field.name] = {name: member[rows] for name, member in value.items()}
            elif isinstance(value, tuple):
                picked[field.name] = tuple(member[rows] for member in value)
            else:
                picked[field.name] = value[rows]
        return Sitter(**picked)


def _turned(
    v: dict[str, Tensor],
    turn: Tensor,
    face_x: Tensor,
    u: float | Tensor,
    depth: float,
) -> tuple[Tensor, Tensor]:
    """Turns a point of the head's sphere; returns its x and its width, 1 where it faces us."""
    u = torch.as_tensor(u)
    forward = (1.0 - u.square()).clamp_min(0.0).sqrt()
    cosine = (1.0 - turn.square()).sqrt()
    x = face_x + v["face_width"] * (u * cosine + depth * forward * turn)
    narrowing = (cosine - u * turn / forward.clamp_min(0.2)).clamp(0.3, 1.25)
    return x, narrowing


def sit(parameters: PortraitParameters) -> Sitter:
    """Places the features of each head and mixes its colours."""
    v = {name: value.view(-1, 1, 1, 1) for name, value in parameters.values.items()}
    attributes = parameters.attributes[..., None, None, None].unbind(1)
    v |= dict(zip(ATTRIBUTES, attributes, strict=True))
    details = parameters.details[..., None, None, None].unbind(1)
    turn = torch.sin(MAX_YAW * v["yaw"])
    face_x = 0.045 * turn
    tilt = -0.085 * v["pitch"]
    eye_y = HEAD_Y + 0.02 + v["eye_height"] + tilt
    (left, left_width), (right, right_width) = (
        _turned(v, turn, face_x, side * v["eye_spacing"], 0.92) for side in (-1.0, 1.0)
    )
    eye_size = v["eye_size"] * (1.07 - 0.14 * v["age"])
    nose_y = eye_y + v["nose_length"] + 0.35 * tilt + 0.015 * v["age"]
    chin_y = HEAD_Y + v["chin_length"] + 0.6 * tilt
    mouth_y = nose_y + v["mouth_height"] * (chin_y - nose_y)
    return Sitter(
        values=v,
        details=dict(zip(DETAILS, details, strict=True)),
        outlines={},
        turn=turn,
        face_x=face_x,
        tilt=tilt,
        eye_y=eye_y,
        eye_x=(left, right),
        eye_width=(eye_size * left_width, eye_size * right_width),
        eye_rise=eye_size * v["eye_roundness"],
        nose=(_turned(v, turn, face_x, 0.0, 1.22)[0], nose_y),
        mouth=(_turned(v, turn, face_x, 0.0, 0.96)[0], mouth_y),
        skin=_skin_colour(v),
        hair=_hair_colour(v),
    )


def _skin_colour(v: dict[str, Tensor]) -> Tensor:
    """Mixes the skin, a little paler with age; returns [N, 3, 1, 1]."""
    skin = palette(v["skin_tone"].pow(0.85), SKIN)
    skin = skin * (1.0 + v["skin_warmth"] * torch.tensor([0.035, -0.03, -0.06]).view(1, 3, 1, 1))
    grey = skin.mean(dim=1, keepdim=True)
    return torch.lerp(skin, grey, 0.16 * v["age"])


def _hair_colour(v: dict[str, Tensor]) -> Tensor:
    """Mixes the hair, natural or dyed; age greys it but keeps some tint; returns [N, 3, 1, 1]."""
    # Darker hair is commoner, the more so with darker skin.
    fair = 0.5 + 0.5 * smooth_step(v["skin_tone"], 0.0, 0.7)
    natural = palette(v["hair_colour"].pow(1.25) * fair, HAIR)
    dyed = hue_colour(v["hair_hue"], 0.66, 0.84)
    hair = torch.lerp(natural, dyed, smooth_step(v["hair_dye"], 0.82, 0.9))
    grey = (0.565 * hair + 0.43125).clamp(0.0, 1.0)
    return torch.lerp(hair, grey, 0.9 * v["age"])


def by_side(canvas: Canvas, left: Tensor, right: Tensor, middle: Tensor) -> Tensor:
    """Chooses by column between what holds left and right of `middle`; returns [N, 1, 1, W]."""
    return torch.where(canvas.x < middle, left, right)


def side_light(canvas: Canvas, s: Sitter, strength: float) -> Tensor:
    """Brightness from left to right under the light; returns [N, 1, 1, W]."""
    return 1.0 + strength * s.values["light"] * canvas.x


def eye_coordinate(canvas: Canvas, s: Sitter, scale: float) -> Tensor:
    """Position across the nearer eye, -1 to 1 between its corners; returns [N, 1, 1, W]."""
    middle = (s.eye_x[0] + s.eye_x[1]) / 2.0
    centre = by_side(canvas, s.eye_x[0], s.eye_x[1], middle)
    return (canvas.x - centre) / (scale * by_side(canvas, s.eye_width[0], s.eye_width[1], middle))


def ear_offset(canvas: Canvas, s: Sitter) -> Tensor:
    """Offset from the nearer ear; the far one hides behind a turned head; returns [N, 1, 1, W]."""
    width = s.values["face_width"] + 0.025
    left = s.face_x - width - 0.15 * s.turn.clamp_max(0.0)
    right = s.face_x + width - 0.15 * s.turn.clamp_min(0.0)
    return canvas.x - by_side(canvas, left, right, s.face_x)


def measure(canvas: Canvas, s: Sitter) -> None:
    """Measures the outlines that several layers need: face, crown (hair without waves) and hair."""
    v = s.values
    volume = 0.035 + 0.16 * v["hair_volume"].square() + 0.05 * v["hair_volume"]
    length = 0.20 + 1.0 * smooth_step(v["hair_length"], 0.1, 1.1)
    centre_x = s.face_x - 0.11 * s.turn
    centre_y = HEAD_Y - 0.06 + 0.25 * s.tilt
    s.outlines["crown"] = profile_distance(
        canvas,
        centre=(centre_x, centre_y),
        half_width=v["face_width"] + 0.75 * volume,
        upper=v["skull_height"] - 0.06 + volume,
        lower=length,
        taper=0.10 - 0.25 * v["hair_volume"] * v["hair_length"],
        exponent=2.0 + 2.5 * v["hair_length"],
    )
    angle = torch.atan2(canvas.x - centre_x, canvas.y - centre_y)
    # Whole waves around the head, so that the angle's seam does not show.
    waves = (angle * 17.0).add_((angle * 3.0).add_(v["hair_phase"]).sin_().mul_(1.6)).sin_()
    s.outlines["hair"] = s.outlines["crown"] + waves * (0.003 + 0.030 * v["hair_curl"].square())
    bend = (canvas.y - HEAD_Y).clamp_min(0.0)
    s.outlines["face"] = profile_distance(
        canvas,
        centre=(s.face_x + 0.10 * s.turn * bend, torch.tensor(HEAD_Y)),
        half_width=v["face_width"],
        upper=v["skull_height"],
        lower=v["chin_length"] + 0.6 * s.tilt,
        taper=v["jaw_taper"] - 0.07 * v["age"],
        exponent=v["jaw_square"],
    )


def hair_texture(canvas: Canvas, s: Sitter) -> Tensor:
    """Colour of the hair with its strands, gloss and light; returns [N, 3, H, W]."""
    v = s.values
    part_x = s.face_x + 0.55 * s.turn * v["face_width"] + 0.2 * v["hair_parting"]
    step_x, step_y = canvas.x - part_x, canvas.y - (HEAD_Y - v["skull_height"] - 0.05)
    angle = torch.atan2(step_x, step_y + 0.12)
    bend = v["hair_curl"] * (3.0 + 5.0 * v["hair_curl"])
    bend = bend * torch.sin(9.0 * canvas.y + v["hair_phase"])
    strands = angle.mul_(13.0).add_(bend).add_(2.0 * v["hair_phase"]).sin_()
    radius = ((step_x - 0.12 * v["light"]).square() * 0.8 + step_y.square()).sqrt_()
    gloss = ((radius - 0.27).mul_(1.0 / 0.09).square_().mul_(-1.0)).exp_()
    shade = strands.mul_(0.085).add_(side_light(canvas, s, 0.24))
    shade.addcmul_(gloss, 0.14 + 0.2 * v["light"] * canvas.x)
    return s.hair * shade + 0.05 * gloss


def face_opening(canvas: Canvas, s: Sitter) -> Tensor:
    """Distance to the opening that the hair leaves for the face; returns [N, 1, H, W]."""
    v = s.values
    width = v["face_width"]
    middle = s.face_x + 0.50 * width * s.turn
    length = smooth_step(v["hair_length"], 0.15, 0.75)
    u = (canvas.x - middle) / width
    # The hairline, down to the brows with a fringe, which parts and sweeps; age draws it back.
    part = 0.65 * v["hair_parting"]
    receding = 0.72 + 0.13 * v["hairline"] + 0.20 * v["age"].square()
    high = HEAD_Y - v["skull_height"] * receding + s.tilt
    brow = s.eye_y - s.eye_rise - 0.5 * v["brow_height"] - 0.02
    fringe = smooth_step(v["hair_fringe"], 0.25, 1.0) * (1.0 - 0.55 * v["age"])
    gap = torch.exp(-((u - part) / 0.32).square())
    parted = 1.0 - 0.75 * gap * (1.0 - smooth_step(v["hair_fringe"], 0.6, 1.0))
    locks = (0.5 + 0.5 * torch.sin(11.0 * u + 2.0 * v["hair_phase"])).square()
    line = torch.lerp(high, brow, fringe * parted) - 0.05 * fringe * locks
    line = line + 0.09 * v["hair_sweep"] * u * (1.0 - 0.5 * fringe)
    line = line + 0.13 * u.square() * (1.0 - fringe)
    line = line + 0.018 * v["hair_curl"] * torch.sin(22.0 * u + v["hair_phase"])
    # The opening's sides: past the ears where hair is short, inside the face where it is long.
    short = smooth_step(canvas.y - s.eye_y, -0.12, 0.06) * (1.0 - length)
    inner = width * (0.97 - 0.24 * v["hair_cover"] * (0.4 + 0.6 * length)) + 0.42 * short
    inner = inner + 0.20 * (canvas.y - HEAD_Y - 0.25).clamp_min(0.0) * (1.0 - 0.5 * v["hair_cover"])
    wave = 0.016 * v["hair_curl"] * torch.sin(20.0 * canvas.y + v["hair_phase"])
    sides = (canvas.x - middle).abs() - (inner + wave)
    return smooth_max(sides, (line - canvas.y) * 0.85, 0.22)


def beard_outline(canvas: Canvas, s: Sitter) -> Tensor:
    """Distance to the beard, which hangs lower the fuller it is; returns [N, 1, H, W]."""
    v = s.values
    beard, width = v["beard"], v["face_width"]
    mouth_y, nose_y = s.mouth[1], s.nose[1]
    u = ((canvas.x - s.mouth[0]) / width).abs()
    # A moustache in the middle, a dip on the cheeks, whiskers up to the ears.
    lip = torch.lerp(nose_y, mouth_y, 0.42)
    top = lip + 0.16 * smooth_step(u, 0.22, 0.5) - 1.5 * (u - 0.60).clamp_min(0.0).square()
    hanging = profile_distance(
        canvas,
        centre=(s.face_x + 0.05 * s.turn, mouth_y),
        half_width=width * (0.86 - 0.5 * v["jaw_taper"]),
        upper=torch.full_like(beard, 0.3),
        lower=HEAD_Y + v["chin_length"] - s.mouth[1] + 0.6 * s.tilt + 0.03 + 0.2 * beard.square(),
        exponent=2.2,
    )
    curls = 0.010 * torch.sin(38.0 * canvas.x + 3.0 * v["hair_phase"])
    inside = torch.minimum(s.outlines["face"], hanging) - 0.012 * beard + curls * beard
    return smooth_max(inside, (top - canvas.y) * 0.85, 0.03)
