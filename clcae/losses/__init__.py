"""Losses of training: pure functions of pictures, codes and logits, and their weighted sum."""
