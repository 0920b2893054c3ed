"""Draws portraits in batches, layer by layer from the background to a badge.

A small feature is evaluated in a window that holds it in any portrait, and a layer that few
portraits have is evaluated on those alone. The units are those of the canvas.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from clcae.portraits import accessories, face, hair, scene
from clcae.portraits.canvas import Canvas
from clcae.portraits.parameters import PortraitParameters
from clcae.portraits.sitter import Sitter, measure, sit

# Small enough for the temporaries of a layer to stay in the processor's cache.
CHUNK = 16


def render(parameters: PortraitParameters, *, size: int = 64) -> Tensor:
    """Draws portraits, each independently of the others: [N, 3, size, size], in [-1, 1]."""
    chunks = []
    with torch.no_grad():
        for start in range(0, len(parameters), CHUNK):
            canvas = _draw(parameters.slice(start, start + CHUNK), size)
            chunks.append(canvas.pixels.clamp_(0.0, 1.0).mul_(2.0).sub_(1.0))
    return torch.cat(chunks) if chunks else torch.zeros(0, 3, size, size)


def _draw(parameters: PortraitParameters, size: int) -> Canvas:
    """Draws one chunk of portraits, back to front."""
    canvas = Canvas.blank(len(parameters), size)
    sitter = sit(parameters)
    v, details = sitter.values, sitter.details
    measure(canvas, sitter)
    scene.paint_background(canvas, sitter)
    _paint_some(canvas, sitter, details["pattern"], scene.paint_pattern)
    hair.paint_back(canvas, sitter)
    face.paint_neck(canvas, sitter)
    scene.paint_clothes(canvas, sitter)
    face.paint_ears(canvas, sitter)
    face.paint_face(canvas, sitter)
    face.paint_cheeks(canvas, sitter)
    _paint_some(canvas, sitter, details["freckles"], face.paint_freckles)
    face.paint_age(canvas, sitter)
    _paint_some(canvas, sitter, v["beard"], hair.paint_beard)
    face.paint_mouth(canvas, sitter)
    face.paint_nose(canvas, sitter)
    face.paint_eyes(canvas, sitter)
    face.paint_brows(canvas, sitter)
    hair.paint_front(canvas, sitter)
    _paint_some(canvas, sitter, details["strand"], hair.paint_strand)
    _paint_some(canvas, sitter, details["headband"], accessories.paint_headband)
    _paint_some(canvas, sitter, v["glasses"], accessories.paint_glasses)
    _paint_some(canvas, sitter, details["earrings"], accessories.paint_earrings)
    _paint_some(canvas, sitter, details["badge"], scene.paint_badge)
    return canvas


def _paint_some(
    canvas: Canvas,
    s: Sitter,
    presence: Tensor,  # [N, 1, 1, 1]
    painter: Callable[[Canvas, Sitter], None],
) -> None:
    """Paints a layer on the portraits that have it."""
    rows = presence.flatten().nonzero().flatten()
    if rows.numel():
        picked = canvas.pick(rows)
        painter(picked, s.pick(rows))
        canvas.pixels[rows] = picked.pixels
