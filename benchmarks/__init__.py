"""Measures speed and memory as ratios of variants that take turns in one run."""
