"""A request to stop, noticed between two steps.

In: SIGINT (Ctrl-C), SIGTERM, SIGUSR1, SIGUSR2. Out: a `StopRequest`. A second Ctrl-C stops at once.
The last two are what a cluster sends some time before it ends a job. What becomes of the job is decided above: here
they all mean that the run saves and ends.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Of several signals, on one process or on many, the last of these counts.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class StopRequest:
    """Whether, and by which signal, this process was asked to stop."""

    def __init__(self) -> None:
        self.level = 0  # 0: not at all; else the place of the signal in SIGNALS, from 1

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Notes the signal; a second SIGINT raises KeyboardInterrupt where the program stands."""
        if self.level and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        self.level = max(self.level, 1 + SIGNALS.index(signal.Signals(number)))


def signal_name(level: int) -> str | None:
    """`SIGTERM` and the like for a `StopRequest.level`; None for 0."""
    return SIGNALS[level - 1].name if level else None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Signals become a `StopRequest` inside; the handlers from before are put back afterwards."""
    request = StopRequest()
    before = {number: signal.signal(number, request.handle) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
