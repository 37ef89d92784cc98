"""Masks written as runs of pixels.

In: text. Out: masks uint8. Both sets number pixels down the columns.
"""

import numpy as np

from dinov2.eval.examples import Mask


def decode_relative(text: str, *, height: int, width: int) -> Mask:
    """SIIM-ACR and CANDID-PTX: pairs of (pixels skipped since the last run, length).  -> uint8 [height, width] of 0, 1

    Pixels are numbered down the columns from 0. Empty text and -1 are a mask without anything. Raises ValueError where
    the text is no list of pairs or a run leaves the picture.
    """
    flat = np.zeros(height * width, dtype=np.uint8)
    words = text.split()
    if words in ([], ["-1"]):
        return flat.reshape(height, width)
    numbers = np.asarray(words, dtype=np.int64)
    if len(numbers) % 2 or (numbers < 0).any():
        raise ValueError(f"{len(numbers)} numbers, where pairs of a distance and a length (0 or more) are expected")
    skipped, lengths = numbers[0::2], numbers[1::2]
    starts = np.cumsum(skipped) + np.concatenate([[0], np.cumsum(lengths)[:-1]])
    if starts[-1] + lengths[-1] > len(flat):
        raise ValueError(f"a run ends at pixel {starts[-1] + lengths[-1]} of {len(flat)} ({height} x {width})")
    steps = np.zeros(len(flat) + 1, dtype=np.int32)
    np.add.at(steps, starts, 1)
    np.add.at(steps, starts + lengths, -1)
    flat = (np.cumsum(steps[:-1]) > 0).astype(np.uint8)
    return np.ascontiguousarray(flat.reshape(width, height).T)
