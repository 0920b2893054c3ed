"""Layers shared by the generator, the discriminator and the encoders."""
