"""Frozen networks of losses and metrics: identity, attributes, perceptual features."""
