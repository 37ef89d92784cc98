"""Names a data worker that is much slower than its siblings, batch after batch.

In: the `made` of each batch. Out: words for a person, once for each slow worker.
"""

from collections import deque
from statistics import median

from dinov2.batch import Made

NUM_BATCHES = 8  # of each worker that are looked at
SLOW_FACTOR = 3.0  # times the siblings' pace, from which a worker is named ...
RECOVERED_FACTOR = 1.5  # ... and below which it may be named again


class Pace:
    """The last batches of every worker of this process."""

    def __init__(self) -> None:
        self._made: dict[int, deque[Made]] = {}
        self._told: set[int] = set()

    def add(self, made: Made) -> str | None:
        """Words where the worker of this batch turns out to be slow; None most of the time.

        A worker's pace is the median of its last batches, so that one slow picture names nobody; it is held against the
        median pace of its siblings.
        """
        mine = self._made.setdefault(made.worker, deque(maxlen=NUM_BATCHES))
        mine.append(made)
        siblings = [_pace(made_) for worker, made_ in self._made.items() if worker != made.worker]
        if len(mine) < NUM_BATCHES or not siblings:
            return None
        usual = median(siblings)
        factor = _pace(mine) / max(usual, 1e-9)
        if factor < RECOVERED_FACTOR:
            self._told.discard(made.worker)
        if factor < SLOW_FACTOR or made.worker in self._told:
            return None
        self._told.add(made.worker)
        slowest = max(mine, key=lambda one: one.slowest_seconds)
        return (
            f"data worker {made.worker} (process {made.process}) takes {_pace(mine):.2g} s a batch, the other "
            f"{len(siblings)} take {usual:.2g} s; the slowest picture of its last {NUM_BATCHES} batches was "
            f"{slowest.slowest_path} ({slowest.slowest_seconds:.2g} s to read)"
        )


def _pace(batches: deque[Made]) -> float:
    return median(made.seconds for made in batches)
