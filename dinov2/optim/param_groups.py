"""Which parameter learns at which share of the learning rate and of the weight decay.

In: the student's sub-modules by name. Out: groups for AdamW; each step's `StepPlan` applied to them.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from dinov2.optim.schedules import StepPlan

BACKBONE = "backbone"  # the sub-module that is no head
TOKENS = ("pos_embed", "patch_embed", "mask_token", "cls_token", "register_tokens")
BLOCK = re.compile(r"(?:^|\.)blocks\.(?:\d+\.)?(\d+)\.")  # flat `blocks.7.` or chunked `blocks.1.7.`


@dataclass(frozen=True)
class ParameterSettings:
    """How one parameter is treated."""

    lr_multiplier: float
    wd_multiplier: float
    is_last_layer: bool


def parameter_settings(
    name: str, *, num_blocks: int, layerwise_decay: float, patch_embed_lr_mult: float
) -> ParameterSettings:
    """Settings from a parameter's name within its sub-module, as the public DINOv2 has them.

    The learning rate falls by `layerwise_decay` per layer from the output down: tokens and patch map lie at layer 0,
    block i at i + 1, the rest (the final norm; all of a head, which has 0 blocks) at `num_blocks` + 1 with the full
    rate. Biases, norms and LayerScale are not decayed. (Layer-wise decay: BEiT, arXiv 2106.08254, appendix.)
    """
    rate = layerwise_decay ** (num_blocks + 1 - layer_of(name, num_blocks=num_blocks))
    if "patch_embed" in name:
        rate *= patch_embed_lr_mult
    undecayed = name.endswith(".bias") or "norm" in name or "gamma" in name
    return ParameterSettings(
        lr_multiplier=rate, wd_multiplier=0.0 if undecayed else 1.0, is_last_layer="last_layer" in name
    )


def layer_of(name: str, *, num_blocks: int) -> int:
    """0 for tokens and patch map, i + 1 for block i, `num_blocks` + 1 for everything else."""
    if any(token in name for token in TOKENS):
        return 0
    block = BLOCK.search(name)
    return int(block.group(1)) + 1 if block else num_blocks + 1


def count_blocks(names: Iterable[str]) -> int:
    """How many transformer blocks the parameter names speak of."""
    found = (BLOCK.search(name) for name in names)
    return max((int(block.group(1)) + 1 for block in found if block), default=0)


def build_param_groups(
    student: nn.ModuleDict | Mapping[str, nn.Module], *, layerwise_decay: float, patch_embed_lr_mult: float
) -> list[dict[str, Any]]:
    """Groups of parameters with equal settings within one sub-module, in the order in which the modules name them.

    Each group has `params`, `name` (the sub-module), `lr_multiplier`, `wd_multiplier` and `is_last_layer`. Parameters
    that do not require a gradient are left out.
    """
    groups: dict[tuple[str, ParameterSettings], dict[str, Any]] = {}
    for module_name, module in student.items():
        parameters = dict(module.named_parameters())
        num_blocks = count_blocks(parameters)
        for name, parameter in parameters.items():
            if not parameter.requires_grad:
                continue
            settings = parameter_settings(
                name,
                num_blocks=num_blocks,
                layerwise_decay=layerwise_decay,
                patch_embed_lr_mult=patch_embed_lr_mult,
            )
            group = groups.setdefault((module_name, settings), {"params": [], "name": module_name, **vars(settings)})
            group["params"].append(parameter)
    return list(groups.values())


def apply_plan(groups: Iterable[dict[str, Any]], plan: StepPlan) -> None:
    """Set `lr` and `weight_decay` of every group (`optimizer.param_groups`) for the coming step.

    Both are 0 for a frozen backbone.
    """
    for group in groups:
        is_backbone = group["name"] == BACKBONE
        rate = plan.last_layer_lr if group["is_last_layer"] else plan.backbone_lr if is_backbone else plan.head_lr
        decay = 0.0 if is_backbone and plan.is_backbone_frozen else plan.weight_decay
        group["lr"] = rate * group["lr_multiplier"]
        group["weight_decay"] = decay * group["wd_multiplier"]
