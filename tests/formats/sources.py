"""Small sources to write: random weights large enough that a wrong mode, order or name cannot hide."""

from typing import Any

import torch

from dinov2.backbone_card import BackboneCard
from dinov2.formats.source import Source
from dinov2.layers import DINOHead
from dinov2.models.architecture import OLD_MODE, REGISTERS_MODE
from dinov2.models.vision_transformer import DinoVisionTransformer

SMALL: dict[str, Any] = {
    "img_size": 70,
    "patch_size": 14,
    "embed_dim": 64,
    "depth": 2,
    "num_heads": 4,
    "init_values": 1.0,
    **OLD_MODE,
}
WITH_REGISTERS: dict[str, Any] = {"num_register_tokens": 4, **REGISTERS_MODE}
HEAD: dict[str, Any] = {"in_dim": 64, "out_dim": 96, "hidden_dim": 48, "bottleneck_dim": 32, "nlayers": 3}


def small_source(**differences: Any) -> Source:
    """Width 64, two blocks, a table of 5 x 5 patches of 14 pixels, and one head."""
    torch.manual_seed(0)
    arguments = SMALL | differences
    vit = DinoVisionTransformer(**arguments).eval()
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, mean=0.1 if parameter.ndim == 1 else 0.0, std=0.3)
    card = BackboneCard(
        arch="vit_custom",
        architecture=arguments,
        resolution_px=vit.patch_embed.img_size[0],
        in_chans=vit.patch_embed.in_chans,
        mean=(0.5307,) * 3,
        std=(0.2583,) * 3,
        heads={"dino_head": HEAD},
        step=5,
    )
    return Source(backbone=vit, card=card, heads={"dino_head": DINOHead(**HEAD).eval()}, origin="a small network")
