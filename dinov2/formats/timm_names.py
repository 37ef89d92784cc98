"""DINOv2's weights under timm's names, and what timm calls an architecture.

In: a state dict under flat public names; a network. Out: timm's tensors, and beside them those that timm has no place
for; a name of an architecture of timm and the arguments that differ from it.

timm keeps no mask token, and calls the matrices of SwiGLU fc1 and fc2. Its networks with registers add no position to
the CLS token: there the sum of the two is the CLS token. A sum cannot be taken apart again, so its terms go into the
second file, and the way back is exact.

Legend: D width, N patches.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dinov2.errors import WeightsError
from dinov2.layers.block import Block
from dinov2.layers.mlp import Mlp
from dinov2.layers.swiglu import SwiGLUFFN
from dinov2.models.timm_names import StateDict
from dinov2.models.vision_transformer import SIZES, DinoVisionTransformer

SWIGLU = ((".mlp.w12.", ".mlp.fc1."), (".mlp.w3.", ".mlp.fc2."))
SIZE_NAMES = {"vit_small": "small", "vit_base": "base", "vit_large": "large", "vit_giant2": "giant"}
PATCH = 14  # of timm's DINOv2
REGISTERS = 4  # of timm's DINOv2 with registers


def to_timm(state: Mapping[str, Tensor]) -> tuple[StateDict, StateDict]:
    """A backbone under timm's names, and what timm has no place for; `models.timm_names` is the way back."""
    theirs, rest = dict(state), {"mask_token": state["mask_token"]}
    del theirs["mask_token"]
    if "register_tokens" in theirs:
        table = theirs["pos_embed"]  # [1, 1 + N, D]
        rest |= {"cls_token": theirs["cls_token"], "cls_position": table[:, :1].clone()}
        theirs["reg_token"] = theirs.pop("register_tokens")
        theirs["cls_token"] = theirs["cls_token"] + table[:, :1]
        theirs["pos_embed"] = table[:, 1:].clone()
    return {_swiglu_name(name): tensor for name, tensor in theirs.items()}, rest


def _swiglu_name(name: str) -> str:
    for ours, theirs in SWIGLU:
        name = name.replace(ours, theirs)
    return name


def timm_architecture(vit: DinoVisionTransformer, *, source: str) -> tuple[str, dict[str, Any]]:
    """The name of timm's architecture, and the arguments in which this network differs from it.

    Arguments are those that a `config.json` can hold. One that is no multiple of anything there begins from the
    nearest: timm's giant where the feed-forward is SwiGLU, else its base.

    Raises:
        WeightsError: timm has no such network.
    """
    block = vit.blocks[0]
    assert isinstance(block, Block)
    size, branch, biases = _size_of(vit), block.mlp, _biases(block)
    if not isinstance(branch, Mlp | SwiGLUFFN):
        raise WeightsError(f"{source}: ffn_layer=identity, a block that timm has not. Use --format dinov2.")
    if biases["proj_bias"] != biases.pop("ffn_bias"):
        raise WeightsError(
            f"{source}: proj_bias and ffn_bias differ; timm has one setting for both. Use --format dinov2 or onnx."
        )
    gated = isinstance(branch, SwiGLUFFN)
    nearest = "vit_giant2" if gated else size or "vit_base"
    arguments = _differences(vit, nearest=nearest, hidden=branch.first.out_features) | {
        name: value for name, value in biases.items() if not value
    }
    registers = "_reg4" if vit.num_register_tokens else ""
    return f"vit_{SIZE_NAMES[nearest]}_patch{PATCH}{registers}_dinov2", arguments


def _size_of(vit: DinoVisionTransformer) -> str | None:
    shape = {"embed_dim": vit.embed_dim, "depth": vit.n_blocks, "num_heads": vit.num_heads}
    return next((name for name in SIZE_NAMES if shape.items() <= SIZES[name].items()), None)


def _biases(block: Block) -> dict[str, bool]:
    last = block.mlp.last
    return {
        "qkv_bias": block.attn.qkv.bias is not None,
        "proj_bias": block.attn.proj.bias is not None,
        "ffn_bias": last is not None and last.bias is not None,
    }


def _differences(vit: DinoVisionTransformer, *, nearest: str, hidden: int) -> dict[str, Any]:
    """`hidden` is the number of rows of the first matrix of the feed-forward."""
    usual = SIZES[nearest]
    rows, columns = vit.patch_embed.patch_size
    found: dict[str, Any] = {
        name: value
        for name, value in (("embed_dim", vit.embed_dim), ("depth", vit.n_blocks), ("num_heads", vit.num_heads))
        if value != usual[name]
    }
    if (rows, columns) != (PATCH, PATCH):
        found["patch_size"] = rows if rows == columns else [rows, columns]
    if vit.patch_embed.in_chans != 3:
        found["in_chans"] = vit.patch_embed.in_chans
    if vit.num_register_tokens not in (0, REGISTERS):
        found["reg_tokens"] = vit.num_register_tokens
    if "ls1.gamma" not in vit.blocks[0].state_dict():
        found["init_values"] = 0.0  # timm drops arguments that are None
    usual_hidden = 8192 if nearest == "vit_giant2" else 4 * vit.embed_dim
    if hidden != usual_hidden or (nearest == "vit_giant2" and vit.embed_dim != usual["embed_dim"]):
        found["mlp_ratio"] = (hidden + 0.5) / vit.embed_dim  # timm cuts off what is behind the point
    return found
