"""The films nearest to a film, by the cosine of their features; exact.

In: vectors float32 [N, D]. Out: rows and similarities, nearest first, the film itself left out.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dinov2.explore.features import Floats

COUNT = 12
ROWS_AT_ONCE = 512
TINY = np.float32(1e-12)  # a vector of zeros has similarity 0 to all


def unit_length(vectors: Floats) -> Floats:
    """[N, D] -> [N, D], every row of length 1, or 0."""
    scale = np.abs(vectors).max(axis=1, keepdims=True)  # so that squares neither overflow nor vanish
    scaled = vectors / np.maximum(scale, TINY)
    units: Floats = scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), TINY)
    return units


class Neighbours:
    """Looks through all films at every question: 20,000 of width 768 take some milliseconds."""

    def __init__(self, vectors: Floats) -> None:
        self._units = unit_length(vectors)

    def of(self, row: int, *, count: int = COUNT) -> tuple[NDArray[np.int64], Floats]:
        """Rows int64 [K] and cosines float32 [K] of one film, K = min(count, N - 1)."""
        rows, similarity = self._of_block(np.arange(row, row + 1), count)
        return rows[0], similarity[0]

    def of_all(
        self, *, count: int = COUNT, advance: Callable[[int], None] = lambda _: None
    ) -> tuple[NDArray[np.int64], Floats]:
        """The same of every film: [N, K], [N, K]."""
        found = []
        for start in range(0, len(self._units), ROWS_AT_ONCE):
            block = np.arange(start, min(start + ROWS_AT_ONCE, len(self._units)))
            found.append(self._of_block(block, count))
            advance(len(block))
        return np.concatenate([rows for rows, _ in found]), np.concatenate([values for _, values in found])

    def _of_block(self, rows: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], Floats]:
        count = min(count, len(self._units) - 1)
        cosines = self._units[rows] @ self._units.T  # [B, N]
        cosines[np.arange(len(rows)), rows] = -np.inf
        if count < cosines.shape[1] - 1:
            nearest = np.argpartition(-cosines, count, axis=1)[:, :count]
        else:
            nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
        values = np.take_along_axis(cosines, nearest, axis=1)
        order = np.lexsort((nearest, -values), axis=1)  # equal ones in the order of their rows
        return np.take_along_axis(nearest, order, axis=1), np.clip(np.take_along_axis(values, order, axis=1), -1, 1)
