"""Gradient clipping, each sub-module by its own norm.

In: modules with gradients. Out: the norms before clipping; gradients scaled in place.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm


def clip_gradients(modules: nn.ModuleDict | Mapping[str, nn.Module], *, max_norm: float) -> dict[str, Tensor]:
    """Scale the gradients of each module so that their joint L2 norm is at most `max_norm`; 0 only measures.

    Returns the norm of each module before clipping, as scalars on its device: nothing waits for the device here. Where
    gradients are shards it is the norm over all processes, the same on each; a module without any gradient has norm 0.
    """
    norms: dict[str, Tensor] = {}
    for name, module in modules.items():
        parameters = [parameter for parameter in module.parameters() if parameter.grad is not None]
        if not parameters:  # a frozen one
            norms[name] = torch.zeros((), device=next(module.parameters()).device)
            continue
        norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
        norms[name] = norm.full_tensor() if isinstance(norm, DTensor) else norm  # of shards: over all processes
        if max_norm > 0:
            clip_grads_with_norm_(parameters, max_norm, norms[name])
    return norms
