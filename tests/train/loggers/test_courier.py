"""A logger's thread: nothing is waited for, nothing is lost that need not be, and every trouble is told once."""

import threading
import time

import pytest

from dinov2.train.loggers import courier as module
from dinov2.train.loggers.courier import Courier
from dinov2.train.loggers.logger import Ending, Numbers


class Notebook:
    """A logger that writes into a list, and raises as long as it is told to."""

    def __init__(self, pages: list[object], *, faults: list[Exception]) -> None:
        self.pages, self.faults = pages, faults

    def numbers(self, step, values):  # noqa: ARG002
        if self.faults:
            raise self.faults.pop(0)
        self.pages.append(step)

    def words(self, step, text):  # noqa: ARG002
        self.pages.append(text)

    def picture(self, step, name, picture):  # noqa: ARG002
        self.pages.append(name)

    def close(self, ending: Ending) -> None:
        self.pages.append(ending)


def ended(courier: Courier) -> list[str]:
    courier.end("finished")
    courier.join(until=time.monotonic() + 30)
    return [news.text for news in courier.news()]


def test_what_fails_for_a_while_is_told_twice_and_loses_nothing():
    pages: list[object] = []
    faults: list[Exception] = [ConnectionError("server away"), ConnectionError("server away")]
    again = threading.Event()
    opened: list[int] = []

    def open_logger(after_step):
        opened.append(after_step)
        if len(opened) == 3:
            again.set()
        return Notebook(pages, faults=faults)

    courier = Courier("notebook", open_logger, after_step=4, retry_seconds=(0.01, 0.01))
    courier.start()
    for step in (5, 6, 7):
        courier.put(Numbers(step=step, values={}))
    assert again.wait(30)
    told = ended(courier)
    assert pages == [5, 6, 7, "finished"]
    assert opened == [4, 4, 4]
    assert [("server away" in text, "nothing was lost" in text) for text in told] == [(True, False), (False, True)]


def test_what_never_works_is_given_up_and_costs_nothing_more():
    tries: list[int] = []

    def never(after_step):
        tries.append(after_step)
        raise OSError("disk full")

    courier = Courier("disk", never, after_step=0, retry_seconds=(0.01, 0.01))
    courier.start()
    for step in range(1, 6):
        courier.put(Numbers(step=step, values={}))
    told = ended(courier)
    assert len(tries) <= 3
    assert told[-1].startswith("logger disk: is off (disk full)")
    assert len(told) <= 2
    courier.put(Numbers(step=9, values={}))
    assert courier._items.empty()


def test_a_logger_that_hangs_holds_up_neither_the_training_nor_its_end():
    release = threading.Event()

    def hangs(after_step):
        release.wait(60)
        return Notebook([], faults=[])

    courier = Courier("server", hangs, after_step=0)
    courier.start()
    courier.put(Numbers(step=1, values={}))  # returns although nobody takes it
    courier.end("finished")
    courier.join(until=time.monotonic() + 0.05)
    told = [news.text for news in courier.news()]
    release.set()
    assert len(told) == 1
    assert "left behind" in told[0]


def test_what_piles_up_beyond_a_bound_is_left_out_and_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    pages: list[object] = []
    faults: list[Exception] = [OSError("away")]
    courier = Courier("slow", lambda _: Notebook(pages, faults=faults), after_step=0, retry_seconds=(0.01,))
    for step in range(1, 8):  # before its thread begins
        courier.put(Numbers(step=step, values={}))
    courier.start()
    for _ in range(3000):
        if len(pages) == 3:
            break
        time.sleep(0.01)
    told = ended(courier)
    assert pages == [1, 2, 3, "finished"]
    assert "4 items were left out meanwhile" in told[-1]
