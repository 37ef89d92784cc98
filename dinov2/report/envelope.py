"""Fewer points that show the same: of every pixel column the mean, the least and the greatest value.

In: a `Series` of any length. Out: at most a point per column. Spikes stay, because the extremes do.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dinov2.report.series import Series

POINTS_PER_COLUMN = 1.5  # up to which every point is drawn as it is


@dataclass(frozen=True)
class Envelope:
    """Points from left to right; where nothing was put together, `low` and `high` are `mean`."""

    steps: NDArray[np.float64]  # [n] mean step of a column
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    lost: NDArray[np.int64]  # steps at which the number was not finite

    @property
    def is_reduced(self) -> bool:
        """Whether a point stands for several."""
        return bool(np.any(self.high > self.low))


def envelope(series: Series, *, columns: int, first: float, last: float) -> Envelope:
    """At most `columns` points between the steps `first` and `last`."""
    finite = series.finite
    lost = series.steps[~np.isfinite(series.values)]
    steps, values = finite.steps.astype(np.float64), finite.values
    if len(steps) <= POINTS_PER_COLUMN * columns or last <= first:
        return Envelope(steps, values, values, values, lost)
    column = np.minimum(((steps - first) / (last - first) * columns).astype(np.int64), columns - 1)
    starts = np.flatnonzero(np.diff(column, prepend=-1))
    counts = np.diff(starts, append=len(steps))
    return Envelope(
        steps=np.add.reduceat(steps, starts) / counts,
        mean=np.add.reduceat(values, starts) / counts,
        low=np.minimum.reduceat(values, starts),
        high=np.maximum.reduceat(values, starts),
        lost=lost,
    )
