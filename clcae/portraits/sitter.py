"""The sitter: where the features of each head lie, and its outlines and colours.

The head is an egg near the origin whose features sit on a sphere turned by the yaw, so that the far
eye narrows and the nose moves most.
"""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from clcae.portraits.canvas import Canvas, by_side, profile_distance, smooth_step
from clcae.portraits.colours import HAIR, SKIN, hue_colour, palette
from clcae.portraits.parameters import ATTRIBUTES, DETAILS, PortraitParameters

HEAD_Y = -0.07
MAX_YAW = 0.50  # radians


@dataclass(frozen=True)
class Sitter:
    """Places, outlines and colours of each portrait that several layers use.

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
        """Turns a point of the face, u half widths from its middle: its x and foreshortening."""
        return _turned(self.values, self.turn, self.face_x, u, depth)

    def pick(self, rows: Tensor) -> "Sitter":
        """Returns the portraits at `rows`."""
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
    """Turns a point of the head's sphere: its x, and its foreshortening, 1 where it faces us."""
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
    """Mixes the colour of the skin [N, 3, 1, 1], a little paler with age."""
    skin = palette(v["skin_tone"].pow(0.85), SKIN)
    skin = skin * (1.0 + v["skin_warmth"] * torch.tensor([0.035, -0.03, -0.06]).view(1, 3, 1, 1))
    grey = skin.mean(dim=1, keepdim=True)
    return torch.lerp(skin, grey, 0.16 * v["age"])


def _hair_colour(v: dict[str, Tensor]) -> Tensor:
    """Mixes the colour of the hair [N, 3, 1, 1], natural or dyed; age greys it but keeps a tint."""
    # Darker hair is commoner, the more so with darker skin.
    fair = 0.5 + 0.5 * smooth_step(v["skin_tone"], 0.0, 0.7)
    natural = palette(v["hair_colour"].pow(1.25) * fair, HAIR)
    dyed = hue_colour(v["hair_hue"], 0.66, 0.84)
    hair = torch.lerp(natural, dyed, smooth_step(v["hair_dye"], 0.82, 0.9))
    grey = (0.565 * hair + 0.43125).clamp(0.0, 1.0)
    return torch.lerp(hair, grey, 0.9 * v["age"])


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


def side_light(canvas: Canvas, s: Sitter, strength: float) -> Tensor:
    """Computes the brightness [N, 1, 1, W] by the direction of the light."""
    return 1.0 + strength * s.values["light"] * canvas.x


def eye_coordinate(canvas: Canvas, s: Sitter, scale: float) -> Tensor:
    """Computes the position [N, 1, 1, W] across the nearer eye, -1 to 1 between its corners."""
    middle = (s.eye_x[0] + s.eye_x[1]) / 2.0
    centre = by_side(canvas, s.eye_x[0], s.eye_x[1], middle)
    return (canvas.x - centre) / (scale * by_side(canvas, s.eye_width[0], s.eye_width[1], middle))


def ear_offset(canvas: Canvas, s: Sitter) -> Tensor:
    """Computes the offset [N, 1, 1, W] from the nearer ear; a turned head hides the far one."""
    width = s.values["face_width"] + 0.025
    left = s.face_x - width - 0.15 * s.turn.clamp_max(0.0)
    right = s.face_x + width - 0.15 * s.turn.clamp_min(0.0)
    return canvas.x - by_side(canvas, left, right, s.face_x)
