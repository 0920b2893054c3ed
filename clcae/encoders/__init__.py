"""The trained parts of inversion systems: pyramid, foundation, W+ rows, feature, residual."""
