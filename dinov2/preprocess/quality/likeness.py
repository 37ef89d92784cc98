"""Does a finished picture look like a chest film, or like its negative?

In: grey levels. Out: a score, positive for a film with bright bones and dark air.
"""

from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dinov2.preprocess.quality.framing import within_bars

REDUCED = 64  # pixels a side where bars are looked for
SIDE = 32  # pixels a side that the drawing is compared on
EXTENTS = (0.7, 0.85, 1.0, 1.2)  # height and width of a chest, as shares of the picture
DOWN, ACROSS = (-0.15, 0.0, 0.15), (-0.15, -0.07, 0.0, 0.07, 0.15)  # where its centre is
SMALLEST_WINDOW = 0.45  # of the picture; what is compared on less says little
BORDER_WEIGHT = 0.3


def likeness(picture: NDArray[np.uint8]) -> float:
    """How much more a picture [h, w] looks like a chest film than its negative does; below 0 it looks like a negative.

    Two witnesses speak after bars at the sides are cut off and levels are replaced by their ranks, so that neither
    windows nor gamma matter. The larger one: a coarse drawing of a frontal chest is laid on the picture in many sizes
    and places, and its best correlation is compared with its worst. The smaller one: the border, where there is air,
    is darker than the centre, where there is a body; that holds for lateral films too. The score of a negative is
    minus that of the film. It says nothing about other parts of the body.
    """
    small = np.asarray(Image.fromarray(picture).resize((REDUCED, REDUCED), Image.Resampling.BOX))
    inside = np.ascontiguousarray(small[within_bars(small)])
    reduced = Image.fromarray(_ranks(inside)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    ranks = np.asarray(reduced, dtype=np.float32)
    if ranks.std() < 1e-3:
        return 0.0
    return _drawn_chest(ranks) + BORDER_WEIGHT * _centre_above_border(ranks)


def _ranks(levels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Each level's share of darker pixels, 0 .. 1; equal levels stay equal."""
    counts = np.bincount(levels.ravel(), minlength=256)
    ranks: NDArray[np.float32] = ((np.cumsum(counts) - counts / 2) / levels.size).astype(np.float32)[levels]
    return ranks


def _centre_above_border(ranks: NDArray[np.float32]) -> float:
    """Mean rank of the middle column less that of the upper corners and the sides above the abdomen."""
    edge, corner, upper = SIDE // 10, SIDE // 4, 5 * SIDE // 8
    sides = (ranks[:upper, :edge], ranks[:upper, -edge:], ranks[:edge, :corner], ranks[:edge, -corner:])
    centre = ranks[SIDE // 5 : 4 * SIDE // 5, 3 * SIDE // 8 : 5 * SIDE // 8]
    return float(centre.mean() - np.concatenate([side.ravel() for side in sides]).mean())


def _drawn_chest(ranks: NDArray[np.float32]) -> float:
    """Best correlation with the drawing, over its placements, plus the worst: nought where neither polarity fits."""
    drawings, windows, sizes = _placements()
    values = ranks.ravel() - ranks.mean()
    variances = windows @ values**2 - (windows @ values) ** 2 / sizes
    correlations = (drawings @ values) / np.sqrt(np.maximum(variances, 1e-6)) * np.sqrt(sizes / SIDE**2)
    return float(correlations.max() + correlations.min())


@cache
def _placements() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Drawings [P, SIDE * SIDE] of mean 0 and norm 1 within their windows (1 inside, 0 outside), pixels per window."""
    places = (np.arange(SIDE) + 0.5) / SIDE
    drawings, windows = [], []
    for height, width, down, across in product(EXTENTS, EXTENTS, DOWN, ACROSS):
        rows = (places - (0.5 + down - height / 2)) / height  # of the chest: 0 at its top, 1 at its bottom
        columns = (places - (0.5 + across - width / 2)) / width
        window = np.outer((rows >= 0) & (rows <= 1), (columns >= 0) & (columns <= 1)).astype(np.float64)
        if window.mean() < SMALLEST_WINDOW:
            continue
        drawing = _drawing(rows[:, None], columns[None, :])
        drawing = (drawing - (drawing * window).sum() / window.sum()) * window
        drawings.append((drawing / np.linalg.norm(drawing)).ravel())
        windows.append(window.ravel())
    masks = np.array(windows, dtype=np.float32)
    return np.array(drawings, dtype=np.float32), masks, masks.sum(axis=1)


def _drawing(rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian blobs at (row, column) with their (vertical, horizontal) extent, all as shares of the chest."""
    blobs = (
        (1.0, 0.60, 0.50, 0.60, 0.10),  # spine and mediastinum
        (0.5, 1.00, 0.50, 0.12, 0.40),  # abdomen
        (-0.9, 0.45, 0.25, 0.25, 0.10),  # lung
        (-0.9, 0.45, 0.75, 0.25, 0.10),  # lung
        (-0.5, 0.00, 0.00, 0.20, 0.20),  # air beside the neck
        (-0.5, 0.00, 1.00, 0.20, 0.20),
    )
    drawing = np.zeros((rows.size, columns.size))
    for level, y, x, dy, dx in blobs:
        drawing += level * np.exp(-(((rows - y) / dy) ** 2) - ((columns - x) / dx) ** 2)
    return drawing
