"""Where the film is within its frame: letterbox bars, collimator blades and shutters are no part of it.

In: grey levels or film values, reduced to a small array. Out: the rows and columns between the bars.
"""

import numpy as np
from numpy.typing import NDArray

FLAT_SHARE = 0.025  # of the range: a line whose 5th and 95th percentile differ by less is a bar
SMALLEST_SHARE = 1 / 3  # of a side that always stays: more than that is not a bar, but a flat film


def within_bars(values: NDArray[np.generic]) -> tuple[slice, slice]:
    """Rows and columns of `values` [h, w] without the nearly constant bars at its four sides, whatever their value.

    Text and markers on a bar do not make it a part of the film, as long as they take less than a twentieth of a line.
    """
    levels = np.asarray(values, dtype=np.float32)
    tolerance = FLAT_SHARE * float(np.ptp(levels)) if levels.size else 0.0
    ends = [0, levels.shape[0], 0, levels.shape[1]]  # top, bottom, left, right
    while True:
        before = list(ends)
        for first, across in ((0, 1), (2, 0)):
            part = levels[ends[0] : ends[1], ends[2] : ends[3]]
            low, high = np.percentile(part, (5, 95), axis=across)
            least = max(1, int(SMALLEST_SHARE * levels.shape[1 - across]))
            start, stop = _trimmed(high - low <= tolerance, least=least)
            ends[first : first + 2] = ends[first] + start, ends[first] + stop
        if ends == before:
            return slice(ends[0], ends[1]), slice(ends[2], ends[3])


def _trimmed(flat: NDArray[np.bool_], *, least: int) -> tuple[int, int]:
    """The first line that is not flat and the one after the last; at least `least` lines, else all of them."""
    lively = np.flatnonzero(~flat)
    if lively.size == 0 or lively[-1] + 1 - lively[0] < least:
        return 0, len(flat)
    return int(lively[0]), int(lively[-1]) + 1
