"""One seed per step and process, for what is drawn inside the networks (drop path).

In: the run's seed, a step, a rank. Out: a number. A resumed run draws what the uninterrupted one would have drawn.
"""

import hashlib


def step_seed(seed: int, *, step: int, rank: int) -> int:
    """A 63-bit seed; different steps and ranks have unrelated ones."""
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
