"""Backbones in and out: opened from every form in which they are found, written in every form that others load.

In: a name; or a `Source`. Out: an `Opened`; or files, read back by the library that they are for.
"""

from dinov2.formats.opened import Opened
from dinov2.formats.opening import load_backbone, open_vit
from dinov2.formats.source import Source, Written

__all__ = ["Opened", "Source", "Written", "load_backbone", "open_vit"]
