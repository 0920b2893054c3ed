"""Layers shared by generator, discriminator, encoders and frozen networks."""
