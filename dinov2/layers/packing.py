"""Pictures of several sizes as one row of tokens.

In: tokens [B, N, D], a tensor a size. Out: tokens [T, D], one picture after the other, and the `Groups` that say where
each picture begins; and the way back. Linear layers and norms see one long row; only attention asks for groups.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

Groups = tuple[tuple[int, int], ...]
"""(pictures, tokens a picture) of every size, in their order in the row; T is the sum of their products."""


def pack(sizes: Sequence[Tensor]) -> tuple[Tensor, Groups]:
    """Tokens of every size in one row.  [B, N, D] each -> [T, D]; without a copy where there is one size"""
    groups = tuple((tokens.shape[0], tokens.shape[1]) for tokens in sizes)
    rows = [tokens.flatten(0, 1) for tokens in sizes]
    return (rows[0] if len(rows) == 1 else torch.cat(rows)), groups


def unpack(tokens: Tensor, groups: Groups) -> list[Tensor]:
    """Views of every size.  [T, ...] -> [B, N, ...] each"""
    parts = torch.split(tokens, [pictures * length for pictures, length in groups])
    return [part.view(*group, *tokens.shape[1:]) for part, group in zip(parts, groups, strict=True)]
