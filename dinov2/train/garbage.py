"""Python's garbage collector, out of the way of the steps.

In: how many steps lie between two collections. Out: a training in which it runs at those places and nowhere else. Left
alone it runs in the middle of a step on one process, and all others wait for that one.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def collector_between_steps(every_steps: int) -> Iterator[Callable[[int], None]]:
    """Inside, garbage is collected by the function that is given, which is called after each step with its number.

    What was there before the training is never looked at again until it is over.
    """
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()

    def after_step(step: int) -> None:
        if step % every_steps == 0:
            gc.collect()

    try:
        yield after_step
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()
