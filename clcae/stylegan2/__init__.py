"""StyleGAN2: mapping network, skip synthesis, generator and discriminator."""

from clcae.stylegan2.discriminator import Discriminator
from clcae.stylegan2.generator import Generator
from clcae.stylegan2.latents import LatentSpace, broadcast_rows, normalize_z, truncate
from clcae.stylegan2.layer import Layer
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
    "truncate",
]
