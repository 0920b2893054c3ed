"""Where images come from: folders, zip files, tensors, and the generator itself."""
