"""Encoder-based StyleGAN2 inversion: the library, which knows nothing of training or editing."""
