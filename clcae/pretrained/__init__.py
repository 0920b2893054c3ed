"""Reads official files: unpickling as data, and key maps between their layouts and ours."""
