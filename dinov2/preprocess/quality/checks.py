"""What is remarked on a film that passed every filter, from its pixels.

In: the film as decoded, and its picture. Out: flags.
"""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dinov2.config.preprocess import Quality
from dinov2.preprocess.quality.framing import within_bars
from dinov2.preprocess.quality.likeness import likeness
from dinov2.preprocess.quality.tail import is_filled_up
from dinov2.preprocess.radiograph import Radiograph
from dinov2.preprocess.reasons import Flag

Level = TypeVar("Level", np.float32, np.uint8, np.bool_)
LINES = 128  # rows and columns that shares and percentiles are taken from: 16,384 pixels or more say enough


def remarks(film: Radiograph, picture: NDArray[np.uint8], *, policy: Quality) -> tuple[Flag, ...]:
    """Flags of one film: polarity_suspect, truncated, saturated, near_constant.  `picture` is its 8-bit picture [h, w].

    The film is looked at on a grid, and in full only at its end: a few milliseconds for any size.
    """
    found = (
        (likeness(picture) < 0, Flag.POLARITY_SUSPECT),
        (is_filled_up(film.pixels), Flag.TRUNCATED),
        (white_share(film) > policy.saturated_share, Flag.SATURATED),
        (contrast(picture) < policy.near_constant_levels, Flag.NEAR_CONSTANT),
    )
    return tuple(flag for is_so, flag in found if is_so)


def white_share(film: Radiograph) -> float:
    """The share of a film's pixels at its brightest value, bars at the sides and padding left out.

    The dark end is not looked at: direct radiation clips there on many a good film.
    """
    values = _grid(film.pixels)
    mask = np.ones(values.shape, dtype=bool) if film.padding is None else np.logical_not(_grid(film.padding))
    if not mask.any():
        return 0.0
    white = values[mask].min() if film.larger_is_darker else values[mask].max()
    inside = within_bars(np.where(mask, values, values[mask].min()))
    counted = mask[inside]
    return float((values[inside] == white)[counted].mean()) if counted.any() else 0.0


def contrast(picture: NDArray[np.uint8]) -> int:
    """Grey levels between the 5th and the 95th percentile of a picture [h, w], bars at the sides left out."""
    values = _grid(picture).astype(np.float32)
    low, high = np.percentile(values[within_bars(values)], (5, 95))
    return round(float(high - low))


def _grid(values: NDArray[Level]) -> NDArray[Level]:
    """At most twice `LINES` rows and columns, evenly spread."""
    rows, columns = (max(1, size // LINES) for size in values.shape)
    return values[::rows, ::columns]
