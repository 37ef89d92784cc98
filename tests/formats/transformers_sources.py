"""Small backbones to export, and pictures to put to them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dinov2.backbone_card import BackboneCard
from dinov2.formats import Source
from dinov2.layers import DINOHead
from dinov2.models.registry import ARCHITECTURES
from dinov2.models.vision_transformer import DinoVisionTransformer

SIDE = 70  # of the pictures that the position table is for
SMALL = {
    "img_size": SIDE,
    "patch_size": 14,
    "in_chans": 3,
    "embed_dim": 64,
    "depth": 2,
    "num_heads": 4,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "ffn_bias": True,
    "proj_bias": True,
    "init_values": 0.1,
    "ffn_layer": "mlp",
    "block_chunks": 0,
    "num_register_tokens": 0,
    "interpolate_antialias": False,
    "interpolate_offset": 0.1,
}
HEAD = {"in_dim": 64, "out_dim": 32, "nlayers": 3, "hidden_dim": 48, "bottleneck_dim": 16}
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "registers": {"num_register_tokens": 3},
    "SwiGLU": {"ffn_layer": "swiglufused"},
    "registers and SwiGLU, as the giant": {
        "num_register_tokens": 4,
        "ffn_layer": "swiglufused",
        "interpolate_antialias": True,
        "interpolate_offset": 0.0,
    },
    "no LayerScale": {"init_values": None},
    "no biases": {"qkv_bias": False, "proj_bias": False, "ffn_bias": False},
    "one channel": {"in_chans": 1},
    "patches of 10": {"patch_size": 10, "mlp_ratio": 2.0, "depth": 1},
}


def small_source(
    *, arch: str = "vit_custom", heads: tuple[str, ...] = (), provenance: dict[str, Any] | None = None, **changes: Any
) -> Source:
    """Random weights far from their initial values, so that each of them matters."""
    architecture = SMALL | changes
    if arch != "vit_custom":
        architecture = {key: value for key, value in architecture.items() if key not in ("embed_dim", "depth")}
        architecture |= {"num_heads": 12, "img_size": 518} | changes
    torch.manual_seed(0)
    backbone = ARCHITECTURES[arch](**architecture).eval()
    spread = 0.05 if arch == "vit_custom" else 0.01
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    card = BackboneCard(
        arch=arch,
        architecture=architecture,
        resolution_px=architecture["img_size"],
        in_chans=architecture["in_chans"],
        mean=(0.53,),
        std=(0.26,),
        heads=dict.fromkeys(heads, HEAD),
        step=7,
        provenance=provenance or {},
    )
    modules = {name: DINOHead(**HEAD).eval() for name in heads}
    return Source(backbone=backbone, card=card, heads=modules, origin="a small network")


def film(*, rows: int = 90, columns: int = 110) -> Image.Image:
    """A grey picture that is neither square nor of the network's size."""
    rng = np.random.default_rng(1)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 11), dtype=np.uint8))
    return coarse.resize((columns, rows), Image.Resampling.BILINEAR)


@torch.no_grad()
def tokens(backbone: DinoVisionTransformer, pixels: Tensor) -> Tensor:
    """CLS, registers, patches of grey pixels in three channels."""
    found = backbone.forward_features(pixels[:, : backbone.patch_embed.in_chans])
    cls = found["x_norm_clstoken"].unsqueeze(1)
    return torch.cat([cls, found["x_norm_regtokens"], found["x_norm_patchtokens"]], dim=1)


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())
