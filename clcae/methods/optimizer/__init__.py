"""The search behind methods that optimise codes: variables and losses, starts, and Adam."""
