"""DINOv2's weights without a card: the architecture is read off the tensors.

In: a `.pth` or `.safetensors` file, or a Hugging Face folder of DINOv2. Out: a `DinoBackbone`.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from dinov2.errors import WeightsError
from dinov2.eval.backbones.ours import IMAGENET_MEAN, IMAGENET_STD, DinoBackbone, dino_traits
from dinov2.eval.backbones.processor import FILE, read_json, read_processor
from dinov2.layers.block import LAYER_NORM_EPS
from dinov2.models.position_table import square_grid
from dinov2.models.vision_transformer import SIZES, DinoVisionTransformer
from dinov2.models.weights import load_part, read_weights

log = logging.getLogger(__name__)

HEADS_BY_WIDTH = {size["embed_dim"]: size["num_heads"] for size in SIZES.values()}
HEAD_WIDTH = 64
NOT_OF_THE_BACKBONE = ("head.*", "fc.*", "classifier.*", "linear_head.*")
NEEDED = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.attn.proj.weight")
OLD_MODE = {"interpolate_offset": 0.1, "interpolate_antialias": False}
REGISTERS_MODE = {"interpolate_offset": 0.0, "interpolate_antialias": True}
PLAIN_MODE = {"interpolate_offset": 0.0, "interpolate_antialias": False}
"""How the position table is resampled: as the first public models do, as those with registers, and as transformers does
for models without registers."""


def architecture_of(state: Mapping[str, Tensor], *, source: str, num_heads: int | None = None) -> dict[str, Any]:
    """Arguments of `DinoVisionTransformer` for tensors under public names, in the public models' modes.

    The number of heads is in no tensor: that of the named sizes, else one per 64 of the width.
    Raises WeightsError where these are not such tensors.
    """
    absent = [name for name in NEEDED if name not in state]
    if absent:
        raise WeightsError(
            f"{source}: no vision transformer of DINOv2, it lacks {', '.join(absent)}. Give the backbone's weights "
            "(`teacher_checkpoint.pth`, `dinov2_vitb14_pretrain.pth`, an export)."
        )
    width, channels, patch, other_side = state["patch_embed.proj.weight"].shape
    grid = square_grid(state["pos_embed"].shape[1] - 1)
    if grid is None or patch != other_side:
        raise WeightsError(f"{source}: patches or position table are not square; give an export, whose card says all.")
    heads = num_heads or HEADS_BY_WIDTH.get(width, width // HEAD_WIDTH)
    if not heads or width % heads:
        raise WeightsError(f"{source}: width {width} does not tell the number of heads; give an export with its card.")
    registers = state["register_tokens"].shape[1] if "register_tokens" in state else 0
    return {
        "img_size": grid[0] * patch,
        "patch_size": patch,
        "in_chans": channels,
        "embed_dim": width,
        "depth": 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks.")),
        "num_heads": heads,
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
        "proj_bias": "blocks.0.attn.proj.bias" in state,
        "init_values": 1.0 if "blocks.0.ls1.gamma" in state else None,
        "num_register_tokens": registers,
        **_feed_forward(state, width=width, source=source),
        **(REGISTERS_MODE if registers else OLD_MODE),
    }


def _feed_forward(state: Mapping[str, Tensor], *, width: int, source: str) -> dict[str, Any]:
    if "blocks.0.mlp.fc1.weight" in state:
        hidden = state["blocks.0.mlp.fc1.weight"].shape[0]
        return {"ffn_layer": "mlp", "ffn_bias": "blocks.0.mlp.fc1.bias" in state, "mlp_ratio": hidden / width}
    if "blocks.0.mlp.w12.weight" in state:
        # SwiGLU keeps 2/3 of mlp_ratio * width, rounded up to a multiple of 8; this ratio gives the same again.
        hidden = state["blocks.0.mlp.w12.weight"].shape[0] // 2
        return {
            "ffn_layer": "swiglufused",
            "ffn_bias": "blocks.0.mlp.w12.bias" in state,
            "mlp_ratio": (hidden * 3 // 2) / width,
        }
    raise WeightsError(f"{source}: its blocks have neither mlp.fc1 nor mlp.w12; expected DINOv2's names.")


def open_public_state(state: dict[str, Tensor], *, path: Path, name: str) -> DinoBackbone:
    """What the file `path` holds; mean, deviation and size of a `preprocessor_config.json` beside it, else ImageNet's.

    The size is otherwise the one its position table was trained at (518 for the public models).
    Raises WeightsError.
    """
    vit = _loaded(state, arguments=architecture_of(state, source=str(path)), source=str(path))
    return _as_backbone(vit, folder=path.parent, name=name)


def open_export_without_card(folder: Path, *, name: str) -> DinoBackbone:
    """A folder with `backbone.safetensors` and nothing that describes it.  Raises WeightsError."""
    path = folder / "backbone.safetensors"
    return open_public_state(read_weights(path).part("backbone"), path=path, name=name)


def fits_our_network(config: Mapping[str, Any], folder: Path) -> bool:
    """Whether a Hugging Face folder of DINOv2 is one file of weights that our own network computes the same with."""
    ours = config.get("hidden_act", "gelu") == "gelu" and config.get("layer_norm_eps", LAYER_NORM_EPS) == LAYER_NORM_EPS
    return ours and weights_file(folder) is not None


def weights_file(folder: Path) -> Path | None:
    """The one file of weights of a Hugging Face folder; None where they are in several, or none."""
    files = [folder / entry for entry in ("model.safetensors", "pytorch_model.bin")]
    return next((file for file in files if file.is_file()), None)


def open_dinov2_folder(folder: Path, *, name: str) -> DinoBackbone:
    """A Hugging Face folder of model_type `dinov2` or `dinov2_with_registers`, without transformers.

    The position table is resampled as transformers does it, so the features are those of the folder's own library.
    Raises WeightsError.
    """
    config = read_json(folder / "config.json")
    file = weights_file(folder)
    if file is None:
        raise WeightsError(f"{folder}: no model.safetensors and no pytorch_model.bin in it. Download the folder again.")
    state = read_weights(file).part("backbone")
    arguments = architecture_of(state, source=str(file), num_heads=config.get("num_attention_heads"))
    if not arguments["num_register_tokens"]:
        arguments |= PLAIN_MODE
    vit = _loaded(state, arguments=arguments, source=str(file))
    return _as_backbone(vit, folder=folder, name=name)


def _loaded(state: dict[str, Tensor], *, arguments: dict[str, Any], source: str) -> DinoVisionTransformer:
    vit = DinoVisionTransformer(**arguments)
    load_part(vit, state, source=source, allow_missing=("mask_token",), allow_unexpected=NOT_OF_THE_BACKBONE)
    return vit


def _as_backbone(vit: DinoVisionTransformer, *, folder: Path, name: str) -> DinoBackbone:
    said = read_processor(folder, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    if said.size_px:
        log.info("%s: mean, deviation and size as %s says", name, folder / FILE)
    patch = vit.patch_embed.patch_size[0]
    size = said.size_px if said.size_px and said.size_px % patch == 0 else None
    return DinoBackbone(vit, traits=dino_traits(vit, name=name, mean=said.mean, std=said.std, input_size=size))
