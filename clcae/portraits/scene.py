"""Paints what surrounds the head: the background, the clothes."""

import math

import torch

from clcae.portraits.canvas import Canvas, smooth_max, smooth_step
from clcae.portraits.colours import hue_colour, rgb
from clcae.portraits.sitter import Sitter, side_light


def paint_background(canvas: Canvas, s: Sitter) -> None:
    """Paints a vertical gradient."""
    v = s.values
    light = 0.42 + 0.55 * v["background_light"]
    top = hue_colour(v["background_hue"], v["background_saturation"], light)
    bottom = hue_colour(
        v["background_hue"] + v["background_shift"], v["background_saturation"] + 0.1, light * 0.8
    )
    gradient = torch.lerp(top, bottom, (canvas.y + 1.0) / 2.0)
    torch.mul(gradient, side_light(canvas, s, 0.07), out=canvas.pixels)


def paint_pattern(canvas: Canvas, s: Sitter) -> None:
    """Paints stripes, dots or checks on the background."""
    v = s.values
    angle, kind = v["pattern_angle"], v["pattern_kind"]
    cycle = 2.0 * math.pi * v["pattern_frequency"]
    along = torch.sin(cycle * (canvas.x * torch.cos(angle) + canvas.y * torch.sin(angle)))
    across = torch.sin(cycle * (canvas.y * torch.cos(angle) - canvas.x * torch.sin(angle)))
    dots_or_checks = torch.where(kind < 2.0 / 3.0, along + across - 1.0, 1.4 * along * across)
    signal = torch.where(kind < 1.0 / 3.0, along, dots_or_checks)
    # Darker than a light background, lighter than a dark one.
    light = 0.42 + 0.55 * v["background_light"]
    light = torch.where(light > 0.68, 0.58 * light, 1.55 * light).clamp_max(0.95)
    tint = hue_colour(v["pattern_hue"], 0.40, light)
    canvas.paint(canvas.coverage(signal / -cycle), tint)


def paint_clothes(canvas: Canvas, s: Sitter) -> None:
    """Paints the clothes with their neckline and its band, and a shirt under a jacket."""
    v = s.values
    lower = canvas.window(-1.0, 0.42, 1.0, 1.0)
    span = lower.x.abs() / v["shoulder_width"]
    shoulder = 0.575 + 0.10 * span + 0.30 * span.square().square()
    slope = (1.0 + (0.3 * span + 1.2 * span**3).square()).rsqrt()
    body = (shoulder - lower.y) * slope
    off = (lower.x - 0.1 * s.face_x).abs()
    straight = v["neckline_depth"] - 1.15 * off
    curved = v["neckline_depth"] - 0.05 - 3.1 * off.square()
    neckline = torch.lerp(straight, curved, v["neckline_shape"])
    cut = (neckline - lower.y) * 0.72
    clothes = smooth_max(body, cut, 0.03)
    cloth = hue_colour(v["clothes_hue"], v["clothes_saturation"], v["clothes_light"])
    trim = hue_colour(v["collar_hue"], 0.22, v["collar_light"])
    light = side_light(lower, s, 0.22)
    fold = (0.5 - 6.0 * (lower.y - shoulder - 0.12).abs_()).clamp_min_(0.0) * span
    lower.fill(clothes, cloth * (light * (1.0 - 0.35 * fold)))
    jacket = off - 0.02 - (0.04 + 0.30 * v["jacket"]) * v["jacket"] * (1.3 - lower.y)
    worn = smooth_step(v["jacket"], 0.25, 0.5)
    lower.fill(torch.maximum(clothes, jacket * 0.9), trim * light, opacity=worn)
    lower.fill(torch.maximum(clothes, (cut + 0.03).abs_() - 0.032), trim * (0.94 * light))
    edge = (clothes + 0.008).abs_().sub_(0.008)
    lower.fill(edge, cloth * 0.55, opacity=0.35)


def paint_badge(canvas: Canvas, s: Sitter) -> None:
    """Paints a badge on the clothes: a disc with a ring, a diamond or a cross."""
    v = s.values
    lower = canvas.window(-0.6, 0.6, 0.6, 1.0)
    size = v["badge_size"]
    x = (lower.x - v["badge_x"]) / size
    y = (lower.y - 0.775) / size
    disc = (x.square() + y.square()).sqrt_()
    diamond = (x.abs() + y.abs()).mul_(0.8)
    thick, thin = torch.maximum(x.abs(), y.abs()), torch.minimum(x.abs(), y.abs())
    cross = torch.maximum(thick, thin + 0.55)
    kind = v["badge_kind"]
    shape = torch.where(kind < 1.0 / 3.0, disc, torch.where(kind < 2.0 / 3.0, diamond, cross))
    colour = hue_colour(v["badge_hue"], 0.75, 1.0)
    lower.fill((shape - 1.22) * size, rgb(250, 248, 240))
    lower.fill((shape - 0.92) * size, colour)
    lower.fill((shape - torch.where(kind < 2.0 / 3.0, 0.45, 0.0)) * size, rgb(40, 36, 48))
