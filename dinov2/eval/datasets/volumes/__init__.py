"""Volumes as slices: NIfTI files and arrays on disk become grey pictures and masks."""
