"""Which picture comes when.

In: the number of pictures and a seed. Out: the row of the manifest at any position of an endless stream, and the
positions of any batch.

The stream is global: position p is the same picture whatever the number of ranks or workers. It goes through all
pictures once a pass, in a new random order each pass, and drops none.
"""

import numpy as np
from numpy.typing import NDArray

from dinov2.data.randomness import Purpose, generator
from dinov2.errors import ManifestError

MAX_GUARD = 8192  # positions on either side of a pass boundary that are kept free of common pictures


class SampleStream:
    """Position in the stream -> row.  Holds one order at a time: 4 bytes a picture.

    Within a pass no picture comes twice, and the last `guard` pictures of a pass are not among the first `guard` of the
    next. So a global batch of at most min(N / 3, 8192) pictures never holds one picture twice, even where it lies
    across the boundary.
    """

    def __init__(self, num_pictures: int, *, seed: int) -> None:
        if not 0 < num_pictures < 2**32:
            raise ManifestError(
                f"training needs 1 to 2**32 - 1 pictures, got {num_pictures}. Check train.dataset_path and data.*."
            )
        self.num_pictures = num_pictures
        self.seed = seed
        self.guard = min(num_pictures // 3, MAX_GUARD)
        self._pass = -1
        self._order: NDArray[np.uint32] = np.empty(0, np.uint32)

    def row(self, position: int) -> int:
        """The row at `position` (0, 1, 2 ...); constant time, but for the first look into a pass, which shuffles it."""
        number, place = divmod(position, self.num_pictures)
        if number != self._pass:
            self._order = self._order_of(number)
            self._pass = number
        return int(self._order[place])

    def _order_of(self, number: int) -> NDArray[np.uint32]:
        # Only rows outside the tail move when a pass is set apart from the one before, so a tail is known without its
        # own history.
        order = self._shuffled(number)
        if number > 0 and self.guard > 0:
            tail = self._order if self._pass == number - 1 else self._shuffled(number - 1)
            _set_apart(order, tail=tail[-self.guard :])
        return order

    def _shuffled(self, number: int) -> NDArray[np.uint32]:
        rng = generator(self.seed, number, purpose=Purpose.ORDER)
        order = np.arange(self.num_pictures, dtype=np.uint32)
        rng.shuffle(order)
        return order


def batch_positions(batch_index: int, *, batch_size: int, rank: int, num_ranks: int) -> range:
    """Positions of this rank's part of a batch: `batch_size` neighbours, ranks one after another."""
    start = (batch_index * num_ranks + rank) * batch_size
    return range(start, start + batch_size)


def _set_apart(order: NDArray[np.uint32], *, tail: NDArray[np.uint32]) -> None:
    """Swap, in place, rows of the head that are in `tail` for rows of the middle that are not; the own tail stays."""
    guard = len(tail)
    clashes = np.flatnonzero(np.isin(order[:guard], tail))
    # Twice the guard is enough to look through: at most `guard - len(clashes)` rows there are in the tail.
    middle = order[guard : len(order) - guard][: 2 * guard]
    free = guard + np.flatnonzero(~np.isin(middle, tail))[: len(clashes)]
    order[clashes], order[free] = order[free], order[clashes]
