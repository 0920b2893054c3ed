"""Metrics: pure functions, and accumulators that state their protocol."""
