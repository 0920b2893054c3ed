"""StyleGAN2: mapping network, skip synthesis, generator and discriminator.

The only family of generators that is supported. Methods, editing and training take `Generator`
itself: its layers, RGB skip, noise maps and affine maps have no counterpart in other families.
"""

from clcae.stylegan2.discriminator import Discriminator
from clcae.stylegan2.generator import Generator
from clcae.stylegan2.latents import LatentSpace, broadcast_rows, normalize_z, truncate
from clcae.stylegan2.layer import Layer
from clcae.stylegan2.sphere import slerp, walk, walk_in_steps
from clcae.stylegan2.synthesis import NoiseMode, Prefix

__all__ = [
    "Discriminator",
    "Generator",
    "LatentSpace",
    "Layer",
    "NoiseMode",
    "Prefix",
    "broadcast_rows",
    "normalize_z",
    "slerp",
    "truncate",
    "walk",
    "walk_in_steps",
]
