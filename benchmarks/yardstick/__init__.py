"""The textbook: what the papers say, written plainly, as the measure of our speed and results."""
