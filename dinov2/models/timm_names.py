"""Names of timm, and of DINOv3, to the public ones of DINOv2.

In: a state dict of timm's vision transformers (`vit_*_patch14_dinov2`, `vit_*_patch16_dinov3`), or of DINOv3 itself.
Out: the same under flat public names; any other state dict as it is.

timm's networks with registers add no position to the CLS token: its token is the sum of the two, so the row of the
table is zero here and every feature is the same. DINOv3 has no table at all: what has a place in our network is
renamed, and the table is then missing.

Legend: D width, N patches, R registers.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from dinov2.errors import WeightsError
from dinov2.models.position_table import square_grid

StateDict = dict[str, Tensor]

NOT_IN_TIMM = "not_in_timm.safetensors"
"""A file beside timm's that `dinov2 export --format timm` writes: mask_token [1, D], and of a network with registers
cls_token and cls_position, both [1, 1, D], whose sum is timm's cls_token."""

OF_BLOCKS = re.compile(r"^blocks\.\d+\.")
REGISTERS = ("reg_token", "storage_tokens")
IN_BLOCKS = {"gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma"}
HALVES = (("mlp.fc1_g.", "mlp.fc1_x.", "mlp.fc2."), ("mlp.w1.", "mlp.w2.", "mlp.w3."))  # gate, value, last matrix
CONSTANTS = ("rope.periods", "rope_embed.periods", "attn.k_bias")  # what a configuration says, kept beside the weights


def from_timm(state: StateDict) -> StateDict:
    """Public names for timm's and DINOv3's.

    Raises:
        WeightsError: registers whose table fits no square grid.
    """
    of_timm = any(name in state for name in REGISTERS)
    renamed = {_renamed(name): tensor for name, tensor in state.items() if not name.endswith(CONSTANTS)}
    renamed = _gated(_with_whole_bias(renamed))
    return _with_row_of_cls(renamed) if of_timm and "pos_embed" in renamed else renamed


def with_rest(state: StateDict, rest: Mapping[str, Tensor], *, source: str) -> StateDict:
    """Public names to which the tensors of `NOT_IN_TIMM` are given back, so that the way there and back is exact.

    Raises:
        WeightsError: the two files are not of the same export.
    """
    whole = dict(state) | {"mask_token": rest["mask_token"]}
    if "cls_token" in rest:
        if not torch.equal(rest["cls_token"] + rest["cls_position"], state["cls_token"]):
            raise WeightsError(f"{source}: belongs to other weights than lie beside it. Remove it or export again.")
        whole["cls_token"] = rest["cls_token"]
        whole["pos_embed"] = torch.cat([rest["cls_position"], state["pos_embed"][:, 1:]], dim=1)
    return whole


def _renamed(name: str) -> str:
    if name in REGISTERS:
        return "register_tokens"
    match = OF_BLOCKS.match(name)
    if match is None:
        return name
    inside = name[match.end() :]
    return match.group() + IN_BLOCKS.get(inside, inside)


def _with_whole_bias(state: StateDict) -> StateDict:
    """Keys have no bias there: `q_bias` and `v_bias`, or a mask over the whole one, become one bias with zeros."""
    whole: StateDict = {}
    for name, tensor in state.items():
        block = OF_BLOCKS.match(name)
        start = name.rpartition("attn.")[0] + "attn."
        if block is None or not name.startswith(f"{block.group()}attn."):
            whole[name] = tensor
        elif name == f"{start}q_bias" and f"{start}v_bias" in state:
            whole[f"{start}qkv.bias"] = torch.cat([tensor, torch.zeros_like(tensor), state[f"{start}v_bias"]])
        elif name == f"{start}qkv.bias" and f"{name}_mask" in state:
            whole[name] = torch.where(state[f"{name}_mask"] == 1, tensor, torch.zeros_like(tensor))
        elif name not in (f"{start}v_bias", f"{start}qkv.bias_mask"):
            whole[name] = tensor
    return whole


def _gated(state: StateDict) -> StateDict:
    """SwiGLU's two matrices: one above the other in `fc1`, or each by itself; `fc2` after them.  -> w12, w3"""
    gated: StateDict = {}
    for name, tensor in state.items():
        block = OF_BLOCKS.match(name)
        inside = name[block.end() :] if block else ""
        halves = next((one for one in HALVES if block and f"{block.group()}{one[0]}weight" in state), None)
        if block is None or not inside.startswith("mlp."):
            gated[name] = tensor
        elif halves is not None and inside.startswith(halves[0]):
            other = state.get(name.replace(halves[0], halves[1]))
            gated[name if other is None else name.replace(halves[0], "mlp.w12.")] = (
                tensor if other is None else torch.cat([tensor, other])
            )
        elif halves is not None and inside.startswith(halves[1]) and name.replace(halves[1], halves[0]) in state:
            continue  # joined above
        elif halves is not None and inside.startswith(halves[2]):
            gated[name.replace(halves[2], "mlp.w3.")] = tensor
        elif halves is None and _is_packed(state, block.group()):
            gated[name.replace("mlp.fc1.", "mlp.w12.").replace("mlp.fc2.", "mlp.w3.")] = tensor
        else:
            gated[name] = tensor
    return gated


def _is_packed(state: StateDict, block: str) -> bool:
    """Whether fc1 gives twice what fc2 takes."""
    first, last = state.get(f"{block}mlp.fc1.weight"), state.get(f"{block}mlp.fc2.weight")
    return first is not None and last is not None and first.shape[0] == 2 * last.shape[1]


def _with_row_of_cls(state: StateDict) -> StateDict:
    """A table [1, N, D] gets a row of zeros in front; of one [1, 1 + R + N, D] the registers keep their own rows."""
    table, registers = state["pos_embed"], state["register_tokens"]
    rows, count = table.shape[1], registers.shape[1]
    if square_grid(rows) is not None:
        return state | {"pos_embed": torch.cat([torch.zeros_like(table[:, :1]), table], dim=1)}
    if square_grid(rows - 1 - count) is None:
        raise WeightsError(f"pos_embed: {rows} rows beside {count} registers are the patches of no square grid.")
    return state | {
        "pos_embed": torch.cat([table[:, :1], table[:, 1 + count :]], dim=1),
        "register_tokens": registers + table[:, 1 : 1 + count],
    }
