"""Stochastic depth that skips the work: a residual branch sees only a random part of the pictures.

In: tokens [T, D] of pictures in `Groups`, and which pictures are kept. Out: their tokens, and the way back.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dinov2.layers.packing import Groups, pack, unpack

Kept = tuple[Tensor, ...]
"""For every group the numbers of the pictures that go through a branch, int64 [kept]."""


def num_kept(num_pictures: int, *, rate: float) -> int:
    """How many of `num_pictures` go through a branch; at least one, so small batches drop less than `rate`."""
    return max(int(num_pictures * (1 - rate)), 1)


def draw_kept(groups: Groups, *, rate: float, device: torch.device) -> Kept:
    """A random part of the pictures of every group; one `randperm` on the device each."""
    return tuple(torch.randperm(b, device=device)[: num_kept(b, rate=rate)] for b, _ in groups)


def take(tokens: Tensor, groups: Groups, kept: Kept) -> tuple[Tensor, Groups]:
    """The tokens of the kept pictures, packed.  [T, D] -> [T', D]"""
    return pack([part[chosen] for part, chosen in zip(unpack(tokens, groups), kept, strict=True)])


def add_back(tokens: Tensor, groups: Groups, kept: Kept, *, update: Tensor) -> Tensor:
    """`tokens` with `update` added to the kept pictures, times B / kept of each group; the others stay.

    Its expectation over draws is that of an update of all pictures (DINOv2, arXiv 2304.07193, section 5, "Efficient
    stochastic depth").  [T, D], [T', D] -> [T, D]
    """
    updates = unpack(update.to(tokens.dtype), tuple((len(k), n) for k, (_, n) in zip(kept, groups, strict=True)))
    moved = [
        part.index_add(0, chosen, change, alpha=part.shape[0] / chosen.shape[0])
        for part, chosen, change in zip(unpack(tokens, groups), kept, updates, strict=True)
    ]
    return pack(moved)[0]


def weights_of(places: Tensor, groups: Groups, kept: Kept) -> Tensor:
    """What `add_back` multiplies the update of a token by, 0 where its picture is dropped.  int64 [R] -> [R, 1]"""
    pictures = []
    for (number, length), chosen in zip(groups, kept, strict=True):
        weights = torch.zeros(number, device=places.device).index_fill(0, chosen, number / chosen.shape[0])
        pictures.append(weights.unsqueeze(1).expand(number, length))
    return pack(pictures)[0].index_select(0, places).unsqueeze(1)


def residual_on_a_subset(x: Tensor, branch: Callable[[Tensor], Tensor], *, rate: float) -> Tensor:
    """`x + branch(x)` for a random subset of the pictures, scaled by B / kept; the others keep `x`.  [B, N, D]"""
    tokens, groups = pack([x])
    kept = draw_kept(groups, rate=rate, device=x.device)
    part, its_groups = take(tokens, groups, kept)
    update = branch(unpack(part, its_groups)[0])
    return add_back(tokens, groups, kept, update=update.flatten(0, 1)).view_as(x)
