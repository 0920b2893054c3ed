"""Commands over many picture files: reading, batches, aligning, edits, the account of failures."""
