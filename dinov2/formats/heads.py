"""A projection head around tensors whose sizes say all of it.

In: a state dict under public names. Out: a `DINOHead` and the arguments that build it again.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dinov2.errors import WeightsError
from dinov2.layers import DINOHead


def head_arguments(state: Mapping[str, Tensor], *, source: str) -> dict[str, Any]:
    """Arguments of `DINOHead` for tensors under public names.  Raises WeightsError where these are no head."""
    linear = sorted((_place(name), tensor) for name, tensor in state.items() if _is_matrix(name, tensor))
    prototypes = state.get("last_layer.weight_v")
    if not linear or prototypes is None:
        raise WeightsError(
            f"{source}: no projection head of DINOv2, it lacks mlp.*.weight or last_layer.weight_v. "
            "Give a head's file (`dino_head.safetensors`), or leave the heads out."
        )
    first, last = linear[0][1], linear[-1][1]
    arguments = {
        "in_dim": first.shape[1],
        "out_dim": prototypes.shape[0],
        "nlayers": len(linear),
        "hidden_dim": first.shape[0],  # unused where there is one layer
        "bottleneck_dim": last.shape[0],
    }
    if any(name.endswith(".running_mean") for name in state):
        arguments["use_bn"] = True
    if not any(name.startswith("mlp.") and name.endswith(".bias") for name in state):
        arguments["mlp_bias"] = False
    return arguments


def head_of(state: Mapping[str, Tensor], *, source: str) -> tuple[DINOHead, dict[str, Any]]:
    """The head in evaluation mode, loaded strictly, and its arguments.  Raises WeightsError."""
    arguments = head_arguments(state, source=source)
    with torch.device("meta"):  # no initial weights are drawn
        head = DINOHead(**arguments)
    try:
        head.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=True, assign=True)
    except RuntimeError as error:
        raise WeightsError(f"{source}: its head is not laid out as DINOv2's are ({error}).") from error
    return head.eval(), arguments


def _is_matrix(name: str, tensor: Tensor) -> bool:
    return name.startswith("mlp.") and name.endswith(".weight") and tensor.ndim == 2


def _place(name: str) -> int:
    """3 of `mlp.3.weight`; 0 of `mlp.weight`, which a head of one layer has."""
    words = name.split(".")
    return int(words[1]) if words[1].isdigit() else 0
