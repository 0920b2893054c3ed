"""Reads official files: layouts, and key maps between their layouts and ours."""
