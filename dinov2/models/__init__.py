"""Vision transformers, and weights for them.

In: pictures [B, C, rows, columns]; a section `student`; files of weights. Out: tokens; modules; load reports.
"""

from dinov2.models.registry import build_backbone
from dinov2.models.vision_transformer import DinoVisionTransformer, vit_base, vit_giant2, vit_large, vit_small
from dinov2.models.weights import LoadReport, Weights, load_part, read_weights

__all__ = [
    "DinoVisionTransformer",
    "LoadReport",
    "Weights",
    "build_backbone",
    "load_part",
    "read_weights",
    "vit_base",
    "vit_giant2",
    "vit_large",
    "vit_small",
]
