"""Image sources (folders, zip files, tensors), pairs of a generator, and the order of samples."""
