"""Directions in latent space: finding them, loading them, moving along them."""
