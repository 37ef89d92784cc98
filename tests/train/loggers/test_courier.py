"""A logger's thread: nothing is waited for, nothing is lost that need not be, and every trouble is told once."""

import threading
import time

import pytest

from dinov2.train.loggers import courier as module
from dinov2.train.loggers.courier import Courier
from dinov2.train.loggers.logger import Ending, Numbers, Words


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


def test_what_never_works_is_told_once_and_at_the_end_with_what_has_not_arrived():
    tries = threading.Event()
    opened: list[int] = []

    def never(after_step):
        opened.append(after_step)
        if len(opened) > 4:  # more often than there are waits
            tries.set()
        raise OSError("disk full")

    courier = Courier("disk", never, after_step=0, retry_seconds=(0.01, 0.01))
    courier.start()
    for step in range(1, 6):
        courier.put(Numbers(step=step, values={}))
    assert tries.wait(30)
    (first,) = [news.text for news in courier.news()]
    assert first.startswith("logger disk: does not work (disk full). The training goes on; what the logger is to get")
    (last,) = ended(courier)
    assert last.startswith(
        "logger disk: the run is over, and 5 items have not reached it (disk full). All numbers are in"
    )


def test_an_item_that_a_working_logger_never_takes_does_not_hold_up_the_others():
    pages: list[object] = []

    class Particular(Notebook):
        def words(self, step, text):
            raise ValueError(f"{text} at {step} is too long")

    courier = Courier("picky", lambda _: Particular(pages, faults=[]), after_step=0, retry_seconds=(0.01, 0.01))
    courier.start()
    courier.put(Words(step=1, text="alas"))
    courier.put(Numbers(step=2, values={}))
    for _ in range(3000):
        if pages:
            break
        time.sleep(0.01)
    told = ended(courier)
    assert pages == [2, "finished"]
    assert "alas at 1 is too long" in told[0]
    assert told[1:] == ["logger picky: works again; 1 items were left out meanwhile."]


def test_what_fails_only_at_the_very_end_is_not_said_to_concern_the_training():
    class Slammed(Notebook):
        def close(self, ending: Ending) -> None:
            raise ConnectionError(f"gone while it was {ending}")

    courier = Courier("server", lambda _: Slammed([], faults=[]), after_step=0)
    courier.start()
    courier.put(Numbers(step=1, values={}))
    (told,) = ended(courier)
    assert told.startswith("logger server: could not be closed (gone while it was finished). All numbers are in")
    assert "training goes on" not in told


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
