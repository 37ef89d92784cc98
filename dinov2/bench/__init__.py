"""Measurements of this package on the machine at hand, each with the machine's own ceiling beside it."""
