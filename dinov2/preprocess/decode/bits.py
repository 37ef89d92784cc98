"""Containers -> stored values: which bits of each container are the film.

In: unsigned containers as a decoder or the file gave them, and the layout that the header states. Out: signed or
unsigned values, and how many bits they have. PS3.5 8.1.1 lets anything stand in the bits that are not stored, and some
headers state fewer bits than the film has. Which of the two it is, the film itself shows: cutting off bits that belong
to it tears it, leaving in bits that do not belong to it tears it too. The reading with the smaller steps between
neighbours is taken.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinov2.preprocess.decode.layout import Layout

SAMPLED_ROWS = 64
NOISE = 4 / 3  # mean step over mean distance from the mean, of values drawn evenly at random
Values = NDArray[Any]


@dataclass(frozen=True)
class Settled:
    """Stored values and what is known of them."""

    values: Values  # [H, W] or [H, W, C], in the machine's byte order
    low: int
    high: int
    bits: int
    disagrees: bool  # the header stated other bits, and was not believed


def settle(raw: Values, *, layout: Layout) -> Settled:
    """The stored values in `raw` [H, W] or [H, W, C] of unsigned containers; no copy where the header is right."""
    if raw.dtype.itemsize * 8 < layout.bits_stored:  # a compressed stream may be narrower than the header says
        raw = raw.astype(f"<u{layout.bits_allocated // 8}")
    if layout.high_bit != layout.bits_stored - 1:
        return _shifted(raw, layout=layout)
    found = raw.view(raw.dtype.str.replace("u", "i")) if layout.is_signed else raw
    low, high = int(found.min()), int(found.max())
    least, most = _range(layout.bits_stored, is_signed=layout.is_signed)
    if least <= low and high <= most:
        return Settled(found, low, high, layout.bits_stored, layout.disagrees)
    stated = _cut(raw, bits=layout.bits_stored, is_signed=layout.is_signed)
    if _belongs(found, stated=stated):
        return Settled(found, low, high, _bits_of(low, high, is_signed=layout.is_signed), True)
    return Settled(stated, int(stated.min()), int(stated.max()), layout.bits_stored, layout.disagrees)


def _shifted(raw: Values, *, layout: Layout) -> Settled:
    """Values that the header places higher up in their containers, unless none of them reaches there."""
    shift = layout.high_bit + 1 - layout.bits_stored
    top = int(raw.max())
    lies = top >> layout.bits_stored == 0 and bool((raw & ((1 << shift) - 1)).any())
    values = _cut(raw if lies else raw >> shift, bits=layout.bits_stored, is_signed=layout.is_signed)
    return Settled(values, int(values.min()), int(values.max()), layout.bits_stored, lies or layout.disagrees)


def _cut(raw: Values, *, bits: int, is_signed: bool) -> Values:
    """The lowest `bits` of every container, with their sign where they have one."""
    if not is_signed:
        masked: Values = raw & raw.dtype.type((1 << bits) - 1)
        return masked
    spare = raw.dtype.itemsize * 8 - bits
    signed: Values = (raw << spare).view(raw.dtype.str.replace("u", "i"))
    extended: Values = signed >> spare
    return extended


def _range(bits: int, *, is_signed: bool) -> tuple[int, int]:
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if is_signed else (0, (1 << bits) - 1)


def _bits_of(low: int, high: int, *, is_signed: bool) -> int:
    return max(high.bit_length(), (~low).bit_length() if low < 0 else 0) + is_signed


def _belongs(found: Values, *, stated: Values) -> bool:
    """Whether the bits that the header does not count are part of the film.

    They are where cutting them off adds steps. Where a film's own steps are longer than what is left of the range, it
    adds none: then what is left is noise, as no film is, and the whole is not.
    """
    step_found, spread_found = _steps(found)
    step_stated, spread_stated = _steps(stated)
    if step_found < step_stated:
        return True
    noise = step_stated / max(spread_stated, 1e-9)
    return noise > NOISE / 2 and step_found / max(spread_found, 1e-9) < noise / 2


def _steps(values: Values) -> tuple[float, float]:
    """The mean step between neighbours along some rows, and the mean distance from the mean there."""
    rows = values[:: max(1, len(values) // SAMPLED_ROWS)].astype(np.float64)
    return float(np.abs(np.diff(rows, axis=1)).mean()) if rows.shape[1] > 1 else 0.0, float(
        np.abs(rows - rows.mean()).mean()
    )
