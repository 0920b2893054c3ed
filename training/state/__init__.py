"""What a run leaves in its folder, so that it can be resumed: its configuration and checkpoints."""
