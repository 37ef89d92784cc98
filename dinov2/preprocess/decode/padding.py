"""Which pixels are padding, by their stored value.

In: settled stored values and the data set. Out: a mask [H, W], or None. Source: PS3.3 C.7.5.1.1.2. It is found before
any LUT, because the value is one of stored pixels.
"""

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dinov2.preprocess.decode.bits import Settled
from dinov2.preprocess.decode.header import integer

TAG_BITS = 16  # of the two tags' values


def padding(stored: Settled, *, dataset: Dataset, is_signed: bool) -> NDArray[np.bool_] | None:
    """True where a pixel is padding; None where the file states no padding, or no pixel has it."""
    value = integer(dataset, "PixelPaddingValue")
    if value is None:
        return None
    limit = integer(dataset, "PixelPaddingRangeLimit")
    ends = [as_stored(end, bits=stored.bits, is_signed=is_signed) for end in (value, value if limit is None else limit)]
    low, high = max(min(ends), stored.low), min(max(ends), stored.high)
    if low > high:
        return None
    dtype = stored.values.dtype.type
    if low == high:
        mask = stored.values == dtype(low)
    else:
        mask = (stored.values >= dtype(low)) & (stored.values <= dtype(high))
    return mask if mask.any() else None


def as_stored(value: int, *, bits: int, is_signed: bool) -> int:
    """The value as a pixel has it.  Files state it signed for unsigned pixels and the other way round, and filled up to
    16 bits where pixels have fewer.
    """
    if is_signed:
        if value >= 1 << (bits - 1):
            width = bits if value < 1 << bits else max(bits, TAG_BITS)
            value -= 1 << width
        return value
    if value < 0:
        value += 1 << TAG_BITS
    return value & ((1 << bits) - 1) if bits < TAG_BITS else value
