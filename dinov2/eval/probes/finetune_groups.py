"""Which learning rate each parameter has, and how it moves over the steps.

In: a backbone, the head's parameters, two learning rates. Out: groups for AdamW; a factor per step.
"""

import math
from typing import Any

from torch import nn

from dinov2.eval.backbones.backbone import Backbone

NO_ORDER = "none: this network has no order of layers"  # what a result says of layer-wise decay then


def parameter_groups(
    backbone: Backbone,
    head: nn.Module,
    *,
    backbone_lr: float,
    head_lr: float,
    weight_decay: float,
    layer_decay: float,
) -> list[dict[str, Any]]:
    """The head at its own rate; the backbone at `backbone_lr` times `layer_decay` for every part from the output down.

    The final norm has the full rate, the last block `layer_decay` times it, and so on to the embeddings (layer-wise
    decay: BEiT, arXiv 2106.08254, appendix). Biases, norms and other vectors are not decayed. Parameters that require
    no gradient are left out. A network that has no order of parts (`Backbone.parts` raises ValueError) has one rate.
    """
    groups = _split(list(head.named_parameters()), lr=head_lr, weight_decay=weight_decay)
    factors = _factors(backbone, layer_decay=layer_decay)
    by_factor: dict[float, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in backbone.named_parameters():
        if parameter.requires_grad:
            by_factor.setdefault(factors.get(_first_name(name), 1.0), []).append((name, parameter))
    for factor, named in sorted(by_factor.items()):
        groups += _split(named, lr=backbone_lr * factor, weight_decay=weight_decay)
    return groups


def warmup_cosine(step: int, *, total: int, warmup: int) -> float:
    """The factor of the learning rate at a step: up in a straight line over `warmup` steps, then half a cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def has_order(backbone: Backbone) -> bool:
    """Whether the network has an order of parts that layer-wise rates could follow."""
    try:
        return bool(backbone.parts())
    except ValueError:
        return False


def _factors(backbone: Backbone, *, layer_decay: float) -> dict[str, float]:
    """Factor by parameter name, as names are without additions to their matrices."""
    if layer_decay == 1 or not has_order(backbone):
        return {}
    parts = backbone.parts()
    # By identity and not by the part's own names, which need not be those of the whole network.
    factor_of = {
        id(parameter): layer_decay ** (len(parts) - 1 - place)
        for place, part in enumerate(parts)
        for _, parameter in part
    }
    named = backbone.named_parameters()
    return {_first_name(name): factor_of[id(parameter)] for name, parameter in named if id(parameter) in factor_of}


def _first_name(name: str) -> str:
    """`qkv.parametrizations.weight.0.up` -> `qkv.weight`"""
    before, found, after = name.partition(".parametrizations.")
    return f"{before}.{after.partition('.')[0]}" if found else name


def _split(named: list[tuple[str, nn.Parameter]], *, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    matrices = [parameter for _, parameter in named if parameter.ndim > 1]
    vectors = [parameter for _, parameter in named if parameter.ndim <= 1]
    both = ((matrices, weight_decay), (vectors, 0.0))
    return [{"params": group, "lr": lr, "weight_decay": decay} for group, decay in both if group]
