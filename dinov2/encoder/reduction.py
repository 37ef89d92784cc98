"""Films made smaller, fast: torch's antialiased bicubic filter for 8-bit levels.

In: uint8 [H, W] or [H, W, 3]. Out: the same kind, smaller.

It is Pillow's filter with coefficients of 16 bits, not 22: on films about one level in 600 comes out one higher or
lower. Torch computes the channels of a pixel together, so grey rows are laid upon one another like channels, four at a
time. Everything else is left to numpy and OpenCV, which start no threads for it.
"""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

Levels8 = NDArray[np.uint8]

TOGETHER = 4  # channels that fill a register
ROWS_AT_ONCE = 256  # so that they stay in the cache


def reduced(levels: Levels8, *, height: int, width: int) -> Levels8:
    """[H, W] -> [height, width], or [H, W, 3] -> [height, width, 3]; neither side becomes longer.

    Along the rows first, then along the columns, as Pillow does.
    """
    if levels.ndim == 3:
        return _filtered(np.array(levels), height=height, width=width)  # torch wants an array that it could write to
    whole = -(-width // TOGETHER) * TOGETHER
    shorter = np.zeros((len(levels), whole), dtype=np.uint8)
    for top in range(0, len(levels), ROWS_AT_ONCE):
        part = slice(top, top + ROWS_AT_ONCE)
        shorter[part, :width] = _rows_reduced(levels[part], width=width)
    columns = shorter.reshape(len(levels), -1, TOGETHER)
    return _filtered(columns, height=height, width=columns.shape[1]).reshape(height, whole)[:, :width]


def _rows_reduced(levels: Levels8, *, width: int) -> Levels8:
    """[h, W] -> [h, width].  The last strip begins where it fits, so some rows are computed twice."""
    length = -(-len(levels) // TOGETHER)
    starts = [min(i * length, len(levels) - length) for i in range(TOGETHER)]
    strips = np.asarray(cv2.merge([levels[start : start + length] for start in starts]), dtype=np.uint8)
    filtered = _filtered(strips, height=length, width=width)
    rows = np.empty((len(levels), width), dtype=np.uint8)
    for i, start in enumerate(starts):
        rows[start : start + length] = filtered[..., i]
    return rows


def _filtered(levels: Levels8, *, height: int, width: int) -> Levels8:
    """[H, W, C] -> [height, width, C]; an axis that keeps its length is left as it is."""
    channels_last = torch.from_numpy(levels).permute(2, 0, 1).unsqueeze(0)
    done = interpolate(channels_last, size=(height, width), mode="bicubic", antialias=True)
    filtered: Levels8 = done[0].permute(1, 2, 0).numpy()
    return filtered
