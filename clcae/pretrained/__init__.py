"""Official files in: key maps between the layouts of the field and ours, strict both ways."""
