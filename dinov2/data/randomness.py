"""Random numbers that belong to a place, not to a process.

In: the run's seed, an index (a position in the sample stream, or a pass over the pictures) and a purpose. Out: a numpy
`Generator` that gives the same numbers on every worker, rank and restart. Philox is counter-based, so a generator costs
no warm-up.
"""

from enum import IntEnum

import numpy as np

WORD = 2**64


class Purpose(IntEnum):
    """What the numbers are for; each purpose has a stream of its own, so a change of one leaves the others alone."""

    CROPS = 0
    MASKS = 1
    ORDER = 2
    STRATA = 3


def generator(seed: int, index: int, *, purpose: Purpose) -> np.random.Generator:
    """The generator of (seed, index, purpose).  The purpose is the counter's top word, so streams never meet."""
    key = np.array([seed % WORD, index % WORD], dtype=np.uint64)
    counter = np.array([0, 0, 0, int(purpose)], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
