"""Reads strangers' files of torch.save as data: nothing that they hold is ever run."""
