"""Checkpoints that continue a run, and exports that leave it."""
