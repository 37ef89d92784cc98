"""The optimiser, with its memory in place from the start.

In: parameter groups. Out: AdamW whose state has an entry for every parameter, so that what a checkpoint holds and what
a process must remember are the same at step 0 as later.
"""

from collections.abc import Iterable
from typing import Any

import torch


def build_adamw(groups: Iterable[dict[str, Any]], *, betas: tuple[float, float]) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101) in its fused form; means of gradients and their squares begin at 0, as they would."""
    optimizer = torch.optim.AdamW(list(groups), betas=betas, fused=True)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
    return optimizer
