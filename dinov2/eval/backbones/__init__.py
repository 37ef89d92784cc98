"""Backbones behind one interface, opened by name.

In: the name a user gives. Out: a `Backbone`, or an `ImageText`.
"""

from dinov2.eval.backbones.backbone import Backbone, Tokens, Traits
from dinov2.eval.backbones.image_text import ImageText
from dinov2.eval.backbones.opening import open_backbone, open_image_text
from dinov2.eval.backbones.ours import DinoBackbone

__all__ = [
    "Backbone",
    "DinoBackbone",
    "ImageText",
    "Tokens",
    "Traits",
    "open_backbone",
    "open_image_text",
]
