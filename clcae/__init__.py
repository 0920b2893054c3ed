"""Encoder-based StyleGAN2 inversion: the library, which knows nothing of training or editing."""

from clcae.pretrained.loading import load_generator, load_method

__all__ = ["load_generator", "load_method"]
