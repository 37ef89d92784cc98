"""Stochastic depth that skips the work: a residual branch sees only a random part of the pictures.

In: tokens [B, N, D] and a branch. Out: tokens [B, N, D].
"""

from collections.abc import Callable

import torch
from torch import Tensor


def num_kept(num_pictures: int, *, rate: float) -> int:
    """How many of `num_pictures` go through a branch; at least one, so small batches drop less than `rate`."""
    return max(int(num_pictures * (1 - rate)), 1)


def residual_on_a_subset(x: Tensor, branch: Callable[[Tensor], Tensor], *, rate: float) -> Tensor:
    """`x + branch(x)` for a random subset of the pictures, scaled by B / kept; the others keep `x`.

    One `randperm` on the device of `x` draws the subset. Its expectation is `x + branch(x)` (DINOv2, arXiv 2304.07193,
    section 5, "Efficient stochastic depth").  [B, N, D] -> [B, N, D]
    """
    num_pictures = x.shape[0]
    kept = num_kept(num_pictures, rate=rate)
    chosen = torch.randperm(num_pictures, device=x.device)[:kept]
    update = branch(x[chosen])
    return x.index_add(0, chosen, update.to(x.dtype), alpha=num_pictures / kept)
