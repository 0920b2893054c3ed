"""The textbook: what the papers say, written plainly, to measure our speed and results against."""
