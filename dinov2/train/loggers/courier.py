"""A logger and the thread that feeds it, so that the training never waits for a disk or a server.

In: items, handed over without waiting. Out: calls of the logger, in order, and what the user is to be told: once when
it does not work, once when it works again, once when it is given up. While it does not work items are kept, and tried
again after longer and longer waits.
"""

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from dinov2.train.loggers.logger import Ending, Item, Logger, Open

RETRY_SECONDS = (2.0, 10.0, 60.0, 300.0, 600.0)  # after the first failure, the second ...; then the logger is off
MOST_WAITING = 2000  # items; more are left out, and counted
CLOSING_SECONDS = 30.0  # that the end of a run waits for what is still on its way


@dataclass(frozen=True)
class News:
    """Something to tell of a logger."""

    text: str
    warning: bool = True


class Courier:
    """Carries items to one logger. Its thread begins with `start`: before it, items are only kept."""

    def __init__(
        self,
        name: str,
        open_logger: Open,
        *,
        after_step: int,
        retry_seconds: tuple[float, ...] = RETRY_SECONDS,
    ) -> None:
        """`after_step`: the step from which the run goes on; a logger that is opened again goes on after its last."""
        self.name = name
        self._open = open_logger
        self._after_step = after_step
        self._retry_seconds = retry_seconds
        self._items: queue.SimpleQueue[Item | Ending] = queue.SimpleQueue()
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._hurry = threading.Event()  # the run is over: no long waits any more
        self._failures = 0  # in a row
        self._lost = 0
        self._off = False
        self._logger: Logger | None = None
        self._thread = threading.Thread(target=self._work, name=f"logger {name}", daemon=True)

    def start(self) -> None:
        """From now on items are carried; the second time nothing happens."""
        if self._thread.ident is None:
            self._thread.start()

    def put(self, item: Item) -> None:
        """Takes an item at once, whatever the logger does."""
        if self._off:
            return
        if self._items.qsize() >= MOST_WAITING:
            self._lost += 1
            return
        self._items.put(item)

    def news(self) -> Iterator[News]:
        """What has to be told since the last time."""
        while not self._news.empty():
            yield self._news.get()

    def end(self, ending: Ending) -> None:
        """Nothing more comes: what waits is carried without long waits in between."""
        self.start()
        self._hurry.set()
        self._items.put(ending)

    def join(self, *, until: float) -> None:
        """Waits for what is on its way, until a moment of `time.monotonic`; a thread that hangs is left behind."""
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            self._tell("was still busy long after the end, and is left behind with what it had not taken")

    def _work(self) -> None:
        while True:
            item = self._items.get()
            if isinstance(item, str):
                self._end(item)
                return
            while not self._off and not self._carried(item):
                pass

    def _carried(self, item: Item) -> bool:
        """Whether the logger has taken the item; else a wait is over, or the logger is off."""
        try:
            if self._logger is None:
                self._logger = self._open(self._after_step)
            item.give(self._logger)
        except Exception as error:  # whatever a foreign library raises, the training goes on
            self._failed(error)
            return False
        self._after_step = max(self._after_step, item.step)
        if self._failures:
            lost = f"; {self._lost} items were left out meanwhile" if self._lost else "; nothing was lost"
            self._news.put(News(f"logger {self.name}: works again{lost}.", warning=False))
            self._failures, self._lost = 0, 0
        return True

    def _failed(self, error: Exception) -> None:
        self._logger = None  # what has failed once may be half closed: it is opened anew
        self._failures += 1
        why = (str(error) or type(error).__name__).strip().splitlines()[0][:300]
        if self._failures == 1 and not self._hurry.is_set():
            self._tell(f"does not work ({why}). It is tried again now and then")
        if self._failures > len(self._retry_seconds) or self._hurry.is_set():
            self._off = True
            self._tell(f"is off ({why}). What it has not taken is in training_metrics.json and logs/timing.json")
            return
        self._hurry.wait(self._retry_seconds[self._failures - 1])

    def _end(self, ending: Ending) -> None:
        if self._logger is None:
            return
        try:
            self._logger.close(ending)
        except Exception as error:  # as above
            self._failed(error)

    def _tell(self, what: str) -> None:
        self._news.put(News(f"logger {self.name}: {what}; the training goes on without it."))
