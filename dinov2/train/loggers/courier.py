"""A logger and the thread that feeds it, so that the training never waits for a disk or a server.

In: items, handed over without waiting. Out: calls of the logger, in order, and what the user is to be told: once when
it does not work, once when it works again, and what has not arrived when the run is over. While it does not work items
are kept, and tried again after longer and longer waits. An item that a working logger refuses again and again is left
out, so that it does not block the others.
"""

import queue
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from dinov2.train.loggers.logger import Ending, Item, Logger, Open

RETRY_SECONDS = (2.0, 10.0, 60.0, 300.0, 600.0)  # after the first failure in a row, the second ...; the last repeats
MOST_WAITING = 2000  # items; more are left out, and counted
CLOSING_SECONDS = 30.0  # that the end of a run waits for what is still on its way
LONGEST_REASON = 160  # characters
ELSEWHERE = "All numbers are in training_metrics.json and logs/timing.json all the same."


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
        self._is_over = False  # nothing is carried any more
        self._logger: Logger | None = None
        self._thread = threading.Thread(target=self._work, name=f"logger {name}", daemon=True)

    def start(self) -> None:
        """From now on items are carried; the second time nothing happens."""
        if self._thread.ident is None:
            self._thread.start()

    def put(self, item: Item) -> None:
        """Takes an item at once, whatever the logger does."""
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
            self._tell(f"still busy {CLOSING_SECONDS:.0f} s after the end of the run, and left behind. {ELSEWHERE}")

    def _work(self) -> None:
        while not self._is_over:
            item = self._items.get()
            if isinstance(item, str):
                self._end(item)
                return
            while not self._is_over and not self._is_done_with(item):
                pass

    def _is_done_with(self, item: Item) -> bool:
        """Whether the logger has taken the item, or will never; else a wait is over, and it is tried again."""
        was_open = False
        try:
            if self._logger is None:
                self._logger = self._open(self._after_step)
            was_open = True
            item.give(self._logger)
        except Exception as error:  # whatever a foreign library raises, the training goes on
            self._failed(error)
            if was_open and self._failures > len(self._retry_seconds):
                self._lost += 1
                return True
            return False
        self._after_step = max(self._after_step, item.step)
        if self._failures:
            lost = f"{self._lost} items were left out meanwhile" if self._lost else "nothing was lost"
            self._tell(f"works again; {lost}.", warning=False)
            self._failures, self._lost = 0, 0
        return True

    def _failed(self, error: Exception) -> None:
        """Says so the first time, and waits until the next try is due; when the run is over there is none."""
        self._logger = None  # what has failed once may be half closed: it is opened anew
        if self._hurry.is_set():
            self._is_over = True
            missing = (
                max(1, self._items.qsize()) + self._lost
            )  # the ending still waits, in place of what has just failed
            self._tell(f"the run is over, and {missing} items have not reached it ({reason(error)}). {ELSEWHERE}")
            return
        self._failures += 1
        if self._failures == 1:
            self._tell(
                f"does not work ({reason(error)}). The training goes on; what the logger is to get is kept, and tried "
                "again until the run is over."
            )
        self._hurry.wait(self._retry_seconds[min(self._failures, len(self._retry_seconds)) - 1])

    def _end(self, ending: Ending) -> None:
        if self._logger is None:
            return
        try:
            self._logger.close(ending)
        except Exception as error:  # as above
            self._tell(f"could not be closed ({reason(error)}). {ELSEWHERE}")

    def _tell(self, what: str, *, warning: bool = True) -> None:
        self._news.put(News(f"logger {self.name}: {what}", warning=warning))


def reason(error: Exception) -> str:
    """What has happened, short enough for a sentence."""
    words = " ".join(str(error).split()) or type(error).__name__
    return textwrap.shorten(words, LONGEST_REASON, placeholder=" …").rstrip(".")
