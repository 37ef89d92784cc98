"""Numbers as colours: viridis, whose lightness rises evenly and which the colour-blind can read.

In: values [h, w]. Out: uint8 [h, w, 3], red, green, blue; the same nine stops for the page's own script.
"""

from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

_MAP = matplotlib.colormaps["viridis"]
STOPS = [[round(255 * part) for part in _MAP(i / 8)[:3]] for i in range(9)]


def brightest(values: "NDArray[np.floating[Any]]") -> float:
    """What one value in 200 exceeds."""
    return float(np.percentile(values, 99.5))


def painted(values: "NDArray[np.floating[Any]]", *, low: float = 0.0, high: float | None = None) -> NDArray[np.uint8]:
    """From `low` to `high` (the largest value where it is not given)."""
    top = float(values.max()) if high is None else high
    share = np.clip((values - low) / max(top - low, 1e-12), 0, 1)
    colours: NDArray[np.uint8] = _MAP(share, bytes=True)[..., :3]
    return np.ascontiguousarray(colours)
