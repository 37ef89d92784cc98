"""Grey levels of a volume -> 0..1.

In: numbers of any kind. Out: float32 in 0..1.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Fixed:
    """Levels from `low` to `high` (Hounsfield units in CT); what lies beyond is clipped."""

    low: float
    high: float

    def limits(self, _values: NDArray[Any]) -> tuple[float, float]:
        """The window, whatever the values."""
        return self.low, self.high


@dataclass(frozen=True)
class Percentiles:
    """Levels between two percentiles, for scanners whose levels have no unit (MRI)."""

    low: float
    high: float

    def limits(self, values: NDArray[Any]) -> tuple[float, float]:
        """The percentiles of the values."""
        low, high = np.percentile(values, [self.low, self.high])
        return float(low), float(high)


Window = Fixed | Percentiles


def scaled(values: NDArray[Any], *, limits: tuple[float, float]) -> NDArray[np.float32]:
    """Clipped to the limits, then 0..1; all 0 where the limits are one level."""
    low, high = limits
    if high <= low:
        return np.zeros(values.shape, dtype=np.float32)
    shares = (values.astype(np.float32) - np.float32(low)) / np.float32(high - low)
    result: NDArray[np.float32] = np.clip(shares, 0, 1)
    return result
