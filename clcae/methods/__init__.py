"""Inversion systems, one file each, under one interface."""
