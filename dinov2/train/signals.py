"""A request to stop, noticed between two steps.

In: SIGINT (Ctrl-C) or SIGTERM. Out: a flag. A second Ctrl-C stops at once.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether, and by which signal, the run was asked to stop."""

    def __init__(self) -> None:
        self.signal_name: str | None = None

    @property
    def received(self) -> bool:
        """True once a signal came."""
        return self.signal_name is not None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Notes the signal; a second SIGINT raises KeyboardInterrupt where the program stands."""
        if self.received and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        self.signal_name = signal.Signals(number).name


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Signals become a `StopRequest` inside; the handlers from before are put back afterwards."""
    request = StopRequest()
    before = {number: signal.signal(number, request.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
