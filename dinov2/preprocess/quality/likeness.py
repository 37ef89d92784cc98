"""Does a finished picture look like a frontal chest film, or like its negative?

In: grey levels. Out: a correlation with a coarse drawing.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 64  # pixels of the reduced picture that is compared with the drawing


def likeness(picture: NDArray[np.uint8]) -> float:
    """Correlation, -1 .. 1, of a picture with a coarse drawing of a frontal chest film: spine and abdomen bright, lungs
    and upper corners dark.

    Below 0 the picture looks like a negative. It says little about lateral films, and nothing about other parts of the
    body.
    """
    small = np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64)
    if small.std() == 0:
        return 0.0
    return float(np.corrcoef(small.ravel(), _drawing().ravel())[0, 1])


def _drawing() -> NDArray[np.float64]:
    """Gaussian blobs at (row, column) with their (vertical, horizontal) extent, all as shares of the side."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1)
    blobs = (
        (1.0, 0.60, 0.50, 0.60, 0.10),  # spine and mediastinum
        (0.5, 1.00, 0.50, 0.12, 0.40),  # abdomen
        (-0.9, 0.45, 0.25, 0.25, 0.10),  # lung
        (-0.9, 0.45, 0.75, 0.25, 0.10),  # lung
        (-0.5, 0.00, 0.00, 0.20, 0.20),  # air beside the neck
        (-0.5, 0.00, 1.00, 0.20, 0.20),
    )
    drawing: NDArray[np.float64] = sum(
        (level * np.exp(-(((rows - y) / dy) ** 2) - ((columns - x) / dx) ** 2) for level, y, x, dy, dx in blobs),
        np.zeros((SIDE, SIDE)),
    )
    return drawing
