"""Runs and networks of a few thousand parameters, as the commands find them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dinov2.backbone_card import BackboneCard
from dinov2.checkpoint.store import CheckpointStore
from dinov2.config.load import load_config
from dinov2.config.schema import Config
from dinov2.models.vision_transformer import DinoVisionTransformer
from dinov2.ssl import Networks, build_networks
from tests.integration.runs import write_tiny_config


def tiny_config(folder: Path, *overrides: str) -> Config:
    return load_config(write_tiny_config(folder), overrides=["ibot.separate_head=true", *overrides]).config


def unlike_networks(config: Config, *, seed: int = 0) -> Networks:
    """A student unlike its teacher, and centres unlike zero."""
    torch.manual_seed(seed)
    networks = build_networks(
        student=config.student, dino=config.dino, ibot=config.ibot, img_size=32, attention="sdpa", reductions=None
    )
    with torch.no_grad():
        for parameter in networks.teacher.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
        for center in networks.centers():
            center.normal_()
    return networks


def save_checkpoint(run: Path, networks: Networks, *, config: Config, step: int = 4) -> Path:
    store = CheckpointStore(run / "checkpoints")
    tensors = {f"networks.{name}": tensor for name, tensor in networks.state_dict().items()}
    store.save(step, tensors=tensors, facts={"position": 4 * step, "config": asdict(config)})
    store.close()
    return run / "checkpoints" / str(step)


def small_vit(**arguments: object) -> DinoVisionTransformer:
    """Width 64, so that a state dict alone says its one head."""
    sizes = {"img_size": 70, "patch_size": 14, "embed_dim": 64, "depth": 2, "num_heads": 1, "init_values": 1.0}
    torch.manual_seed(1)
    return DinoVisionTransformer(**(sizes | arguments)).eval()


def card_of(vit: DinoVisionTransformer, *, heads: dict[str, dict[str, Any]] | None = None) -> BackboneCard:
    """A card that says no more than its network."""
    return BackboneCard(
        arch="vit_custom",
        architecture={
            "img_size": vit.patch_embed.img_size[0],
            "patch_size": vit.patch_embed.patch_size[0],
            "embed_dim": vit.embed_dim,
            "depth": vit.n_blocks,
            "num_heads": vit.num_heads,
            "init_values": 1.0,
        },
        resolution_px=vit.patch_embed.img_size[0],
        in_chans=3,
        mean=(0.5,),
        std=(0.25,),
        heads=heads or {},
        step=0,
    )
