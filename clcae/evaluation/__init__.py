"""Evaluation: a method and a protocol to rows of results."""
