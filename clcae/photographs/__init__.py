"""Commands over many picture files: aligning, batches, and the account of what was skipped."""
