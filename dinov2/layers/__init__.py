"""The parts of a vision transformer and of its projection head.

In: tokens [B, N, D]. Out: tokens [B, N, D]; from the head, logits [M, K]. Parameters have the public DINOv2's names.
"""

from dinov2.layers.attention import Attention
from dinov2.layers.block import Block
from dinov2.layers.dino_head import DINOHead, WeightNormLinear
from dinov2.layers.drop_path import residual_on_a_subset
from dinov2.layers.kernels import AttentionKernel, choose_attention
from dinov2.layers.layer_scale import LayerScale
from dinov2.layers.mlp import Mlp
from dinov2.layers.patch_embed import PatchEmbed
from dinov2.layers.swiglu import SwiGLUFFN

__all__ = [
    "Attention",
    "AttentionKernel",
    "Block",
    "DINOHead",
    "LayerScale",
    "Mlp",
    "PatchEmbed",
    "SwiGLUFFN",
    "WeightNormLinear",
    "choose_attention",
    "residual_on_a_subset",
]
