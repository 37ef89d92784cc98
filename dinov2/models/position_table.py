"""The learnt table of positions at another grid of patches.

In: a table [1, 1 + N, D] for a grid of N patches. Out: a table [1, 1 + N', D] for the grid that a picture has.

Legend: N patches of the table, D width. The first row of the table belongs to the CLS token and is never resampled.
"""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

Grid = tuple[int, int]  # patches down, patches across


def resample_position_table(table: Tensor, *, grid: Grid, target: Grid, offset: float, antialias: bool) -> Tensor:
    """Bicubic, in float32, in one of three modes.

    `offset` > 0 (0.1 in the first public models) samples at the scale (target + offset) / grid, not target / grid;
    `offset` 0 samples at the size itself, with or without `antialias` (with it, in the public models with registers).
    The modes differ visibly at small targets, so a model keeps the one it was trained with.
    [1, 1 + N, D] -> [1, 1 + N', D] in the dtype of `table`; the table itself where the grids are equal.

    Raises:
        ValueError: the table does not have grid[0] * grid[1] patches, or the offset moves the size off its target.
    """
    if table.shape[1] != 1 + grid[0] * grid[1]:
        raise ValueError(
            f"position table of {table.shape[1]} rows does not fit a grid of {grid[0]} x {grid[1]} patches"
        )
    if grid == target:
        return table
    cls_row, patch_rows = table[:, :1].float(), table[:, 1:].float()
    as_picture = patch_rows.reshape(1, *grid, -1).permute(0, 3, 1, 2)  # [1, D, rows, columns]
    wanted: dict[str, Any] = {"size": target}
    if offset:
        wanted = {"scale_factor": ((target[0] + offset) / grid[0], (target[1] + offset) / grid[1])}
    with nullcontext() if table.is_meta else torch.autocast(table.device.type, enabled=False):
        resampled = interpolate(as_picture, mode="bicubic", antialias=antialias, **wanted)
    if resampled.shape[-2:] != target:
        raise ValueError(
            f"interpolate_offset={offset} gives {tuple(resampled.shape[-2:])} patches instead of {target}; use 0.1"
        )
    patches = resampled.permute(0, 2, 3, 1).flatten(1, 2)
    return torch.cat([cls_row, patches], dim=1).to(table.dtype)


def square_grid(num_patches: int) -> Grid | None:
    """The grid of a table whose grid is not said: the square one, or None where there is none."""
    side = round(num_patches**0.5)
    return (side, side) if side * side == num_patches else None
