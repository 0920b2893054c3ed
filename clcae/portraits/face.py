"""Paints the head: neck, ears, skin, mouth, nose, eyes and brows."""

import torch

from clcae.portraits.canvas import Canvas, by_side, ellipse_distance, smooth_step
from clcae.portraits.colours import EYES, palette, rgb
from clcae.portraits.sitter import HEAD_Y, Sitter, ear_offset, eye_coordinate, side_light


def paint_neck(canvas: Canvas, s: Sitter) -> None:
    """Paints the neck and the chin's shadow on it."""
    v = s.values
    lower = canvas.window(-0.6, 0.1, 0.6, 1.0)
    flare = (lower.y - 0.5).clamp_min(0.0)
    width = v["neck_width"] * (1.0 + 0.045 * v["jaw_square"])
    width = width + 1.2 * flare.square() + 0.3 * flare
    distance = (lower.x - 0.25 * s.face_x).abs() - width
    skin = s.skin * 0.9 * side_light(lower, s, 0.5)
    shadow_y = HEAD_Y + v["chin_length"] + 0.5 * s.tilt + 0.10
    depth = shadow_y - 0.5 * (lower.x - s.face_x + 0.1 * v["light"]).square() - lower.y
    shadow = (depth * 7.0 + 0.5).clamp_(0.0, 1.0)
    lower.fill(distance, skin * (1.0 - 0.34 * shadow))


def paint_ears(canvas: Canvas, s: Sitter) -> None:
    """Paints the ears; turning shows one and hides the other."""
    v = s.values
    side = canvas.window(-0.75, -0.45, 0.75, 0.45)
    x = ear_offset(side, s)
    grow = by_side(side, 1.0 + 0.5 * s.turn, 1.0 - 0.5 * s.turn, s.face_x)
    y = side.y - (s.eye_y + 0.07 - 0.3 * s.tilt)
    distance = ellipse_distance(x, y, 0.62 * v["ear_size"] * grow, v["ear_size"])
    light = side_light(side, s, 0.5)
    side.fill(distance, s.skin * (0.93 * light))
    side.fill(distance + 0.38 * v["ear_size"], s.skin * (0.70 * light), softness=0.06)


def paint_face(canvas: Canvas, s: Sitter) -> None:
    """Paints the face with its shading."""
    v = s.values
    distance = s.outlines["face"]
    # The light falls from one side and a little from above, on less than a sphere.
    u = (canvas.x - s.face_x) / v["face_width"]
    side = v["light"] * (0.25 * u + 0.17 * u.clamp(-1.0, 1.0) ** 3)
    high = -0.07 * (canvas.y - HEAD_Y)
    rim = (distance * 5.0).add_(0.45).clamp_min_(0.0)
    shade = (side + high).add_(1.03).addcmul_(rim, rim, value=-0.5)
    canvas.fill(distance, s.skin * shade)


def paint_cheeks(canvas: Canvas, s: Sitter) -> None:
    """Paints a blush that a smile lifts and age fades."""
    v = s.values
    (left, _), (right, _) = s.across(-0.56), s.across(0.56)
    cheeks = canvas.window(-0.7, -0.25, 0.7, 0.6)
    x = cheeks.x - by_side(cheeks, left, right, s.nose[0])
    y = cheeks.y - (s.nose[1] + 0.03 - 0.03 * v["smile"])
    blush = (1.0 - (x / 0.15).square() - (y / 0.11).square()).clamp_min_(0.0)
    strength = 0.42 + 0.1 * v["smile"].clamp_min(0.0) - 0.42 * v["age"]
    lower = v["chin_length"] + 0.6 * s.tilt
    egg = ellipse_distance(cheeks.x - s.face_x, cheeks.y - HEAD_Y, v["face_width"], lower)
    inside = cheeks.coverage(egg)
    cheeks.paint(blush * inside * strength, s.skin * rgb(255, 140, 130) + rgb(18, 0, 0))


def paint_freckles(canvas: Canvas, s: Sitter) -> None:
    """Paints freckles over nose and cheeks."""
    v = s.values
    x, y = canvas.x - s.nose[0], canvas.y - s.nose[1] + 0.02
    phase = 6.28 * v["freckle_phase"]
    lattice = torch.cos(52.0 * x + 24.0 * y + phase) * torch.cos(47.0 * y - 27.0 * x - 0.6 * phase)
    lattice += 0.35 * torch.cos(17.0 * x + phase) * torch.cos(23.0 * y)
    dots = (lattice - 0.62 + 0.3 * v["freckle_density"]).mul_(2.5).clamp_(0.0, 1.0)
    zone = (1.25 - (x / 0.36).square() - (y / 0.15).square()).mul_(3.0).clamp_(0.0, 1.0)
    mask = dots * zone * canvas.coverage(s.outlines["face"] + 0.03) * 0.75
    canvas.paint(mask, s.skin * rgb(150, 100, 78))


def paint_age(canvas: Canvas, s: Sitter) -> None:
    """Paints the forehead's lines, the bags under the eyes and the folds beside the mouth."""
    v = s.values
    face = canvas.window(-0.6, -0.65, 0.6, 0.7)
    line = s.skin * rgb(152, 112, 104)
    middle = s.across(0.0, 0.95)[0]
    x = (face.x - middle) / (0.62 * v["face_width"])
    top = s.eye_y - s.eye_rise - v["brow_height"] - 0.085
    rows = (top - 0.012 * torch.cos(3.0 * x) - face.y) / 0.075
    stripes = (rows - rows.round().clamp_(0.0, 2.0)).abs_().mul_(0.075).sub_(0.011)
    fade = (1.2 - x.square()).clamp(0.0, 1.0)
    face.fill(stripes, line, opacity=0.95 * fade * v["age"])
    # Bags: arcs below the eyes, shaded up to the lid.
    p = eye_coordinate(face, s, 1.0)
    arc = s.eye_y + s.eye_rise * 0.6 + 0.03 + 0.035 * (1.0 - p.square())
    fade = (1.1 - p.square()).clamp(0.0, 1.0)
    shade = (1.0 - (face.y - arc + 0.02).abs() / 0.05).clamp_(0.0, 1.0) * fade
    face.paint(shade * (0.6 * v["age"]), s.skin * rgb(168, 130, 140))
    face.fill((face.y - arc).abs_().sub_(0.012), line, opacity=fade * v["age"])
    # Folds: from the wings of the nose past the corners of the mouth.
    start, end = s.nose[1] - 0.01, s.mouth[1] + 0.05
    t = (face.y - start) / (end - start)
    reach = torch.lerp(v["nose_width"], v["mouth_width"] * (1.02 + 0.15 * v["smile"]), t) + 0.03
    centre = torch.lerp(s.nose[0], s.mouth[0], t)
    folds = ((face.x - centre).abs_() - reach).abs_().mul_(0.8).sub_(0.014)
    ends = ((0.5 - (t - 0.5).abs()) * 5.0).clamp(0.0, 1.0)
    face.fill(folds, line, opacity=ends * v["age"])


def paint_mouth(canvas: Canvas, s: Sitter) -> None:
    """Paints lips that a smile curves and opens over the teeth."""
    v = s.values
    face = canvas.window(-0.6, 0.0, 0.6, 0.75)
    smile = v["smile"]
    width = v["mouth_width"] * (1.0 + 0.17 * smile) * s.across(0.0)[1]
    p = (face.x - s.mouth[0]) / width
    arch = (1.0 - p.square()).clamp_min(0.0)
    outside = (p.abs() - 1.0).clamp_min(0.0) * width
    # A neutral mouth smiles faintly.
    line = s.mouth[1] + (0.022 + 0.078 * smile) * (0.5 - p.square().clamp_max(1.3))
    opening = 0.115 * smooth_step(smile, 0.1, 1.0) * arch
    cupid = 1.0 - 0.35 * torch.exp(-((p / 0.22).square()))
    upper = line - v["lip_fullness"] * 0.9 * cupid * arch - 0.006
    lower = line + opening + v["lip_fullness"] * 1.25 * arch + 0.006
    rose = palette(v["lip_colour"], ((196, 112, 98), (206, 84, 88), (184, 58, 84)))
    lips = torch.lerp(s.skin * rgb(226, 140, 136), rose, 0.25 + 0.5 * v["lip_colour"])
    face.fill(torch.maximum(upper - face.y, face.y - lower) + outside, lips)
    inside = torch.maximum(line - face.y, face.y - line - opening) + outside
    face.fill(inside, rgb(92, 30, 36))
    teeth = torch.maximum(inside, face.y - line - 0.62 * opening)
    face.fill(teeth + 0.004, rgb(250, 246, 238))
    ends = ((1.14 - p.abs()) * 8.0).clamp(0.0, 1.0)
    face.fill((face.y - line).abs_().sub_(0.011), lips * rgb(120, 84, 84), opacity=ends)


def paint_nose(canvas: Canvas, s: Sitter) -> None:
    """Paints the nose: the bridge, the tip and its shadow, away from the light."""
    v = s.values
    face = canvas.window(-0.5, -0.35, 0.5, 0.5)
    x, y = s.nose
    width = v["nose_width"]
    root = (s.eye_x[0] + s.eye_x[1]) / 2.0
    t = ((face.y - s.eye_y) / (y - s.eye_y)).clamp(-0.3, 1.0)
    off = face.x - torch.lerp(root, x, t)
    shadow = s.skin * rgb(190, 152, 142)
    rows = ((t + 0.25) * 3.0).clamp(0.0, 1.0) * ((y - face.y) * 20.0 + 0.5).clamp(0.0, 1.0)
    ridge = 0.018 + 0.45 * width * t.clamp_min(0.0)
    # The bridge is shaded on both sides, more on the one that the light does not reach.
    side = 0.42 - 0.5 * v["light"] * off.sign()
    edge = (1.0 - (off.abs() - ridge).abs_() / 0.032).clamp_min_(0.0)
    face.paint(edge * (side.clamp(0.0, 1.0) * rows), shadow)
    tip_x, tip_y, lit = face.x - x, face.y - y, width * v["light"]
    under = ellipse_distance(tip_x + 0.3 * lit, tip_y - 0.012, 1.18 * width, 0.72 * width)
    face.fill(under, shadow, softness=0.035)
    tip = ellipse_distance(tip_x, tip_y + 0.014, 0.92 * width, 0.66 * width)
    face.fill(tip, s.skin * 1.05 + 0.01, softness=0.05)
    gloss = ellipse_distance(tip_x - 0.25 * lit, tip_y + 0.03, 0.42 * width, 0.36 * width)
    face.fill(gloss, s.skin * 1.1 + 0.09, opacity=0.6, softness=0.05)
    beside, below = tip_x.abs() - 0.55 * width, tip_y - 0.45 * width
    nostrils = ellipse_distance(beside, below, 0.32 * width, 0.018)
    face.fill(nostrils, s.skin * rgb(120, 84, 80), opacity=0.85)


def paint_eyes(canvas: Canvas, s: Sitter) -> None:
    """Paints both eyes at once: white, iris, pupil, highlight and lids."""
    v = s.values
    face = canvas.window(-0.6, -0.35, 0.6, 0.25)
    p = eye_coordinate(face, s, 1.0)
    middle = (s.eye_x[0] + s.eye_x[1]) / 2.0
    outward = p * torch.where(face.x < middle, -1.0, 1.0)
    arch = 1.0 - p.square()
    rise, wide = s.eye_rise, v["eye_openness"].pow(0.85)
    centre = s.eye_y - v["eye_slant"] * outward
    upper = centre + rise * (0.42 - 1.42 * wide) * arch
    lower = centre + rise * (0.46 + 0.14 * wide) * arch
    eye = torch.maximum(upper - face.y, face.y - lower).mul_(0.85)
    lid = torch.maximum(centre - rise * 1.12 * arch - face.y, face.y - lower)
    face.fill(lid, s.skin * rgb(214, 176, 170))
    white = face.coverage(eye)
    shaded = (1.0 - 0.22 * (1.0 - (face.y - upper) / 0.06).clamp_(0.0, 1.0)) * rgb(250, 250, 248)
    face.paint(white, shaded)
    # Turned heads look back a little to the viewer.
    across = p * (s.eye_width[0] + s.eye_width[1]) / 2.0 + 0.03 * s.turn
    along = face.y - (centre - 0.12 * rise)
    radius = 0.74 * rise
    distance = (across.square() + along.square()).sqrt_()
    iris = palette(v["eye_colour"], EYES)
    bright = iris * (1.1 + 0.2 * along / radius)
    for part, colour in ((1.0, iris * 0.45), (0.82, bright), (0.46, rgb(18, 14, 18))):
        face.fill(distance - part * radius, colour, opacity=white)
    glint_x, glint_y = across - 0.32 * radius * (0.4 + v["light"]), along + 0.36 * radius
    glint = (glint_x.square() + glint_y.square()).sqrt_()
    face.fill(glint - 0.024, rgb(255, 255, 255), opacity=white)
    dark = torch.lerp(s.hair, s.skin, 0.3) * 0.22
    taper = ((1.16 - p.abs()) * 6.0).clamp(0.0, 1.0)
    face.fill((face.y - upper + 0.004).abs_().sub_(0.017), dark, opacity=taper)
    below = (face.y - lower - 0.004).abs_().sub_(0.006)
    face.fill(below, s.skin * 0.45, opacity=0.45 * taper)


def paint_brows(canvas: Canvas, s: Sitter) -> None:
    """Paints the brows, thicker towards the nose."""
    v = s.values
    face = canvas.window(-0.65, -0.55, 0.65, 0.1)
    p = eye_coordinate(face, s, 1.22)
    middle = (s.eye_x[0] + s.eye_x[1]) / 2.0
    outward = p * torch.where(face.x < middle, -1.0, 1.0)
    height = s.eye_y - s.eye_rise - v["brow_height"] - 0.022 * v["eye_openness"]
    line = height + v["brow_angle"] * outward - 0.045 * (1.0 - p.square()) + 0.02
    thickness = v["brow_thickness"] * (1.0 - 0.45 * outward.clamp_min(0.0).square())
    ends = ((1.08 - p.abs()) * 7.0).clamp(0.0, 1.0)
    colour = torch.lerp(s.hair, s.skin * 0.6, 0.15) * 0.58
    face.fill((face.y - line).abs_() - thickness, colour, opacity=0.95 * ends)
