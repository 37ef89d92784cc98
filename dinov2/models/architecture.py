"""The architecture of DINOv2's weights, read off their names and shapes.

In: a state dict under public names. Out: arguments of `DinoVisionTransformer`.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dinov2.errors import WeightsError
from dinov2.models.position_table import Grid, square_grid
from dinov2.models.vision_transformer import SIZES

HEADS_BY_WIDTH = {size["embed_dim"]: size["num_heads"] for size in SIZES.values()}
HEAD_WIDTH = 64
NEEDED = ("cls_token", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.attn.proj.weight")
OLD_MODE = {"interpolate_offset": 0.1, "interpolate_antialias": False}
REGISTERS_MODE = {"interpolate_offset": 0.0, "interpolate_antialias": True}
PLAIN_MODE = {"interpolate_offset": 0.0, "interpolate_antialias": False}
"""How the position table is resampled: as the first public models do, as those with registers, and as transformers does
for models without registers."""


def architecture_of(
    state: Mapping[str, Tensor], *, source: str, num_heads: int | None = None, grid: Grid | None = None
) -> dict[str, Any]:
    """Arguments of `DinoVisionTransformer` for tensors under public names, in the public models' modes.

    The number of heads is in no tensor: that of the named sizes, else one per 64 of the width. `grid` is that of the
    position table where it is not square, or where there is no table.
    Raises WeightsError where these are not such tensors.
    """
    absent = [name for name in (*NEEDED, *(() if grid else ("pos_embed",))) if name not in state]
    if absent:
        raise WeightsError(
            f"{source}: no vision transformer of DINOv2, it lacks {', '.join(absent)}. Give the backbone's weights "
            "(`teacher_checkpoint.pth`, `dinov2_vitb14_pretrain.pth`, an export)."
        )
    width, channels, patch, other_side = state["patch_embed.proj.weight"].shape
    grid = grid or square_grid(state["pos_embed"].shape[1] - 1)
    if grid is None or patch != other_side:
        raise WeightsError(f"{source}: patches or position table are not square; give an export, whose card says all.")
    heads = num_heads or HEADS_BY_WIDTH.get(width, width // HEAD_WIDTH)
    if not heads or width % heads:
        raise WeightsError(f"{source}: width {width} does not tell the number of heads; give an export with its card.")
    registers = state["register_tokens"].shape[1] if "register_tokens" in state else 0
    return {
        "img_size": grid[0] * patch if grid[0] == grid[1] else (grid[0] * patch, grid[1] * patch),
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
