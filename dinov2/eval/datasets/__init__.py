"""Labelled pictures by name: any manifest with label or mask columns, and public datasets."""

from dinov2.eval.datasets.opening import open_data
from dinov2.eval.datasets.public import PUBLIC

__all__ = ["PUBLIC", "open_data"]
