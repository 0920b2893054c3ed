"""Networks that judge and never train here: identity, attributes, perceptual distances."""
