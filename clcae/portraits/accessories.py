"""Paints what a sitter wears on the head: headbands and caps, glasses, earrings."""

import torch

from clcae.portraits.canvas import Canvas, by_side, smooth_step
from clcae.portraits.colours import hue_colour, rgb
from clcae.portraits.sitter import HEAD_Y, Sitter, ear_offset


def paint_headband(canvas: Canvas, s: Sitter) -> None:
    """Paints a headband, or a cap over the crown."""
    v = s.values
    x = (canvas.x - s.face_x) / v["face_width"]
    line = HEAD_Y - 0.66 * v["skull_height"] + 0.9 * s.tilt + 0.07 * x.square()
    around = s.outlines["crown"] - 0.03
    hat = v["headband_hat"]
    colour = hue_colour(v["headband_hue"], 0.68, v["headband_light"])
    shade = 1.0 + 0.25 * v["light"] * canvas.x - 0.10 * (canvas.y + 0.75)
    top = torch.maximum(canvas.y - line, line - 0.9 * smooth_step(hat, 0.35, 0.65) - canvas.y)
    canvas.fill(torch.maximum(around, top), colour * (0.84 * shade))
    band = torch.maximum(around - 0.012, (canvas.y - line).abs_() - v["headband_width"])
    canvas.fill(band, colour * shade + 0.06)
    edge = torch.maximum(around - 0.012, (canvas.y - line - v["headband_width"]).abs_() - 0.012)
    canvas.fill(edge, colour * 0.5, opacity=0.6)


def paint_glasses(canvas: Canvas, s: Sitter) -> None:
    """Paints glasses: lenses from square to round, the bridge and the temples."""
    v = s.values
    face = canvas.window(-0.7, -0.4, 0.7, 0.4)
    left, right = s.eye_x[0], s.eye_x[1]
    middle = (left + right) / 2.0
    narrow = [width / v["eye_size"] for width in s.eye_width]
    size = torch.minimum(v["frame_size"], 0.5 * (right - left) - 0.02)
    width = size * by_side(face, narrow[0], narrow[1], middle).clamp(0.7, 1.1)
    height = size * (0.78 + 0.16 * v["frame_roundness"])
    p = (face.x - by_side(face, left, right, middle)) / width
    q = (face.y - s.eye_y - 0.015) / height
    power = 4.5 - 2.3 * v["frame_roundness"]
    level = (p.abs() ** power + q.abs() ** power).clamp_min_(1e-6)
    lens = level.pow_(1.0 / power).sub_(1.0).mul_(0.9 * size)
    colour = hue_colour(v["frame_hue"], 0.55, v["frame_light"])
    face.fill(lens, rgb(235, 244, 255), opacity=0.14)
    streak = torch.maximum(lens + 0.02, (p * width + 0.7 * q * height + 0.04).abs_() - 0.018)
    face.fill(streak, rgb(255, 255, 255), opacity=0.28)
    # One bar behind the lenses makes the bridge and the temples.
    on_head = (face.x - s.face_x).abs() - v["face_width"] + 0.03
    bar = torch.maximum((face.y - s.eye_y + 0.03).abs() - 0.016, on_head)
    face.fill(torch.maximum(bar, -lens), colour)
    face.fill(lens.abs_().sub_(0.019), colour)


def paint_earrings(canvas: Canvas, s: Sitter) -> None:
    """Paints earrings: studs, or pendants on a thread."""
    v = s.values
    side = canvas.window(-0.8, -0.1, 0.8, 0.75)
    x = ear_offset(side, s)
    top = s.eye_y + 0.05 - 0.3 * s.tilt + v["ear_size"]
    size, length = v["earring_size"], v["earring_length"]
    colour = hue_colour(v["earring_hue"], 0.6, 1.0)
    y = side.y - top
    thread = torch.maximum(x.abs() - 0.014, (y - 0.5 * length).abs_() - 0.5 * length)
    drop = (x.square() + (y - length - 0.5 * size).square()).sqrt_() - size
    whole = torch.minimum(thread, drop)
    side.fill(whole - 0.012, colour * 0.35)
    side.fill(whole, colour)
    shine = ((x + 0.3 * size).square() + (y - length - 0.2 * size).square()).sqrt_() - 0.32 * size
    side.fill(shine, rgb(255, 255, 255), opacity=0.85)
