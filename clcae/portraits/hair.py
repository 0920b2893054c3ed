"""Paints the hair: behind the neck, around the face, strands and beards."""

import torch
from torch import Tensor

from clcae.portraits.canvas import Canvas, profile_distance, smooth_max, smooth_step
from clcae.portraits.sitter import HEAD_Y, Sitter, side_light


def paint_back(canvas: Canvas, s: Sitter) -> None:
    """Paints the hair that hangs behind the neck, darker than in front."""
    canvas.fill(s.outlines["hair"], s.hair * 0.62 * side_light(canvas, s, 0.2))


def paint_front(canvas: Canvas, s: Sitter) -> None:
    """Paints the hair around the face: what its opening leaves of the whole."""
    opening = _face_opening(canvas, s)
    hair = torch.maximum(s.outlines["hair"], -opening)
    shadow = canvas.coverage(-opening - 0.05, softness=0.08).mul_(0.35)
    canvas.fill(s.outlines["face"], s.skin * 0.42, opacity=shadow)
    canvas.fill(hair, _hair_texture(canvas, s))


def _hair_texture(canvas: Canvas, s: Sitter) -> Tensor:
    """Computes the colour [N, 3, H, W] of hair with strands, gloss and light."""
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


def _face_opening(canvas: Canvas, s: Sitter) -> Tensor:
    """Computes the distance [N, 1, H, W] to the opening that the hair leaves for the face."""
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


def paint_beard(canvas: Canvas, s: Sitter) -> None:
    """Paints a beard, from stubble to one that hangs below the chin."""
    v = s.values
    beard, distance = v["beard"], _beard_outline(canvas, s)
    opacity = 0.25 + 0.73 * smooth_step(beard, 0.0, 0.65)
    colour = s.hair * 0.80 + 0.02
    texture = 1.0 + 0.06 * torch.sin(46.0 * canvas.x + 7.0 * torch.sin(9.0 * canvas.y))
    shade = texture * (1.0 + 0.28 * v["light"] * canvas.x)
    canvas.fill(distance, colour * shade, opacity=opacity, softness=0.05)


def _beard_outline(canvas: Canvas, s: Sitter) -> Tensor:
    """Computes the distance [N, 1, H, W] to the beard, which hangs lower the fuller it is."""
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


def paint_strand(canvas: Canvas, s: Sitter) -> None:
    """Paints a strand of hair that falls across the face."""
    v = s.values
    start, end = HEAD_Y - 0.92 * v["skull_height"], s.mouth[1] - 0.02
    t = (canvas.y - start) / (end - start)
    middle = s.face_x + 0.4 * v["face_width"] * s.turn
    side = torch.tanh(4.0 * v["strand_side"])
    bend = torch.sin(3.6 * t - 0.4 + 0.5 * v["strand_curve"])
    path = middle + side * (0.02 + 0.16 * t + 0.17 * bend)
    width = v["strand_width"] * (1.4 - 1.3 * t.clamp(0.0, 1.0).square())
    ends = torch.maximum(start - canvas.y, canvas.y - end)
    strand = torch.maximum((canvas.x - path).abs() - width, ends)
    canvas.fill(strand - 0.014, s.hair * 0.5, opacity=0.7)
    canvas.fill(strand, s.hair * 1.08 + 0.03)
