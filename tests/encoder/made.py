"""Small backbones with random weights, as folders that an Encoder opens."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

from dinov2.backbone_card import BackboneCard
from dinov2.encoder import Encoder
from dinov2.models.vision_transformer import DinoVisionTransformer

MEAN, STD = (0.5307,) * 3, (0.2583,) * 3
SIZE, PATCH = 70, 14


def network(**arguments: Any) -> DinoVisionTransformer:
    """Width 64, two blocks; weights so large that a mistake shows."""
    torch.manual_seed(0)
    words = {"img_size": SIZE, "patch_size": PATCH, "embed_dim": 64, "depth": 2, "num_heads": 2, "init_values": 1.0}
    vit = DinoVisionTransformer(**(words | arguments))
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return vit.eval()


def write_export(
    folder: Path,
    *,
    preprocessing: dict[str, Any] | None = None,
    mean: tuple[float, ...] = MEAN,
    std: tuple[float, ...] = STD,
    **arguments: Any,
) -> Path:
    """A folder as `dinov2 export` writes it."""
    vit = network(**arguments)
    words = {"img_size": SIZE, "patch_size": PATCH, "embed_dim": 64, "depth": 2, "num_heads": 2, "init_values": 1.0}
    card = BackboneCard(
        arch="vit_custom",
        architecture=words | arguments,
        resolution_px=vit.patch_embed.img_size[0],
        in_chans=vit.patch_embed.in_chans,
        mean=mean,
        std=std,
        step=0,
        preprocessing=preprocessing or {},
    )
    folder.mkdir(parents=True)
    save_file(dict(vit.state_dict()), folder / "backbone.safetensors")
    card.write(folder)
    return folder


def write_transformers(folder: Path, *, image_size: int = SIZE, **config: Any) -> Path:
    """A folder as transformers writes it, with the processor of RAD-DINO at another size."""
    torch.manual_seed(1)
    words = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2} | config
    model = Dinov2Model(Dinov2Config(image_size=image_size, patch_size=PATCH, layerscale_value=0.7, **words))
    model.save_pretrained(folder)
    processor(image_size).save_pretrained(folder)
    return folder


def processor(size: int) -> BitImageProcessorPil:
    """The processor of RAD-DINO's repository, at a size."""
    return BitImageProcessorPil(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_mean=list(MEAN),
        image_std=list(STD),
    )


def small_encoder(folder: Path, **arguments: Any) -> Encoder:
    """The encoder of an exported folder that is made for it."""
    return Encoder.from_pretrained(write_export(folder / "export", **arguments))


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    """Levels at random, over the whole range."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def card_settings(output: Path) -> dict[str, Any]:
    """What `dinov2 preprocess` wrote down of a folder of pictures."""
    settings: dict[str, Any] = json.loads((output / "preprocess.json").read_text())["settings"]
    return settings
