"""Processes that know of each other whether they live, where they stand, and why one of them ended.

In: what this process does (`Pulse.at`). Out: words of rank 0 about steps and waits that take too long; and, once a
process is lost, `ProcessLost` on all others, with the same words, even on those that hang in an exchange for ever.

Every process has a thread. Those of the other ranks tell rank 0 every two seconds where they stand; rank 0 watches them
all and tells them its verdict, and they watch rank 0. So a beat costs one message a process. The end of a process shows
at once as the end of its connection; a machine that is gone, or a process that is stopped, by silence.
"""

import logging
import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dinov2.distributed.failures import is_of_an_exchange, one_line
from dinov2.distributed.linking import connect
from dinov2.distributed.watch import Limits, Verdict, Watch
from dinov2.distributed.wire import Link, Message
from dinov2.distributed.words import name_places
from dinov2.distributed.world import World
from dinov2.errors import Dinov2Error, ProcessLost

BEAT_SECONDS = 2.0
STEP_BEAT_SECONDS = 0.5  # between two signs of life where steps go on faster than these
NUM_EAGER = 64  # processes that may be so eager; with more, each is less
BEATS_PER_LOSS = 6  # at least so many beats must be missing
TICK_SECONDS = 0.25
CONNECT_SECONDS = 10.0
LAST_WORDS_SECONDS = 0.5  # rank 0 keeps its connections so long after a verdict
EXIT_SECONDS = 3.0  # for the last words of a process that hangs
NUM_NOTES = 4  # words of other ranks that are passed on at a time

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PulseLimits:
    """`lost_seconds`: without a sign of life; `stall_seconds`: in one step; `slow_data_seconds`: in one wait."""

    lost_seconds: float
    stall_seconds: float
    slow_data_seconds: float

    @property
    def grace_seconds(self) -> float:
        """How long the main thread has to end by itself once a process is lost."""
        return self.lost_seconds / 3

    @property
    def beat_seconds(self) -> float:
        """Between two signs of life."""
        return min(BEAT_SECONDS, self.lost_seconds / BEATS_PER_LOSS)


@dataclass(frozen=True)
class _Position:
    step: int
    phase: str
    phase_since: float
    step_since: float


class Pulse:
    """This process as the others see it.  Made by `open_pulse`."""

    def __init__(
        self,
        world: World,
        *,
        limits: PulseLimits,
        link: Link,
        hosts: dict[int, str],
        say: Callable[[str], None],
        data_details: Callable[[], str],
    ) -> None:
        self._world, self._limits, self._link, self._hosts = world, limits, link, hosts
        self._data_details = data_details
        self._clock = _AwakeClock(longest_seconds=2 * limits.beat_seconds)
        watched = hosts if world.is_main else {0: hosts[0]}
        self._watch = Watch.over(
            watched,
            limits=Limits(
                lost=limits.lost_seconds,
                stall=limits.stall_seconds,
                patience=limits.grace_seconds,
                beat=limits.beat_seconds,
            ),
            now=self._clock.now(),
        )
        start = time.monotonic()
        self._position = _Position(0, "start", start, start)
        self._ended, self._words = "", ""
        self._last_beat, self._last_step = float("-inf"), -1
        self._told_wait = 0.0  # beginning of the last wait for data that was told
        self._notes: list[str] = []
        self._spokesman = _Spokesman(say)
        self._verdict: Verdict | None = None
        self._verdict_at = 0.0
        self._decided, self._left, self._stop = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
        self._thread.start()

    def at(self, phase: str, *, step: int) -> None:
        """This process now does `phase` of `step`.  Raises ProcessLost where another process is lost meanwhile."""
        if self._verdict is not None and not self._left.is_set():
            raise self._loss(self._verdict)
        now, before = time.monotonic(), self._position
        self._position = _Position(step, phase, now, before.step_since if step == before.step else now)

    def note(self, text: str) -> None:
        """Has rank 0 say `text`, with the name of this process before it."""
        if self._world.is_main:
            self._take_note(0, text)
        else:
            self._link.send({"note": text})

    def close(self, error: BaseException | None) -> ProcessLost | None:
        """Tells the others how this process ended; returns the loss that made it end, where that was one.

        Where an exchange failed, waits until it is known who is lost.
        """
        self._left.set()
        lost = None
        if error is None:
            self._end("done")
            if self._world.is_main:
                self._wait(lambda: self._watch.all_ended() or self._verdict is not None)
        elif isinstance(error, ProcessLost):
            self._end("cut off", str(error))
        elif self._verdict is not None and isinstance(error, RuntimeError):
            lost = self._loss(self._verdict)
        elif is_of_an_exchange(error):
            lost = self._find_loss(error)
        else:
            self._end("failed", one_line(error))
            if self._world.is_main and self._world.size > 1:
                self._wait(self._decided.is_set, seconds=2.0)
        self._shut()
        return lost

    def _find_loss(self, error: BaseException) -> ProcessLost | None:
        words = one_line(error)
        self._end("cut off", words)
        limits = self._limits
        self._wait(self._decided.is_set, seconds=limits.lost_seconds + 2 * limits.grace_seconds)
        if self._verdict is not None and (self._verdict.ranks or not isinstance(error, Dinov2Error)):
            return self._loss(self._verdict)
        if isinstance(error, Dinov2Error):
            return None
        return ProcessLost(f"an exchange with the other processes failed: {words}. Look at the log of rank 0.")

    def _end(self, ended: str, words: str = "") -> None:
        self._ended, self._words = ended, words
        if not self._world.is_main:
            self._link.send(self._beat())

    def _wait(self, until: Callable[[], bool], *, seconds: float = float("inf")) -> None:
        deadline = time.monotonic() + seconds
        while not until() and time.monotonic() < deadline and self._thread.is_alive():
            time.sleep(TICK_SECONDS / 5)

    def _shut(self) -> None:
        if self._world.is_main and self._verdict is not None:
            time.sleep(LAST_WORDS_SECONDS)
        self._stop.set()
        self._thread.join(timeout=EXIT_SECONDS)
        self._link.close()
        self._spokesman.close()

    # From here on: the thread.

    def _run(self) -> None:
        tick = min(TICK_SECONDS, self._limits.beat_seconds / 4)
        while not self._stop.is_set():
            for rank, message in self._link.receive(tick):
                self._take(rank, message)
            now = self._clock.now()
            if self._world.is_main:
                self._watch.hear(0, self._beat(), now=now)
            if self._is_time_to_beat(now - self._last_beat):
                beat = self._beat()
                self._link.send(beat)
                self._last_beat, self._last_step = now, beat["step"]
                self._tell_notes()
            self._judge(now)
            self._look_at_data()

    def _is_time_to_beat(self, seconds: float) -> bool:
        eager = max(STEP_BEAT_SECONDS, STEP_BEAT_SECONDS * self._world.size / NUM_EAGER)
        is_new = self._position.step != self._last_step
        return seconds >= (min(eager, self._limits.beat_seconds) if is_new else self._limits.beat_seconds)

    def _take(self, rank: int, message: Message | None) -> None:
        now = self._clock.now()
        if message is None:
            self._watch.close(rank, now=now)
        elif "verdict" in message:
            self._decide(Verdict(text=message["verdict"], ranks=tuple(message["ranks"])))
        elif "note" in message:
            self._take_note(rank, message["note"])
        else:
            if not self._world.is_main and message["ended"] == "cut off":
                message["ended"] = ""  # rank 0 is finding out why, and will say so
            self._watch.hear(rank, message, now=now)

    def _judge(self, now: float) -> None:
        if self._verdict is None:
            if found := self._watch.verdict(now=now):
                self._decide(found)
        elif not self._left.is_set() and now - self._verdict_at > self._limits.grace_seconds:
            self._end_process(self._verdict)
        if self._world.is_main and self._verdict is None and (words := self._watch.stall(now=now)):
            self._spokesman.say(words)

    def _decide(self, verdict: Verdict) -> None:
        if self._verdict is not None:
            return
        self._verdict_at = self._clock.now()
        self._verdict = verdict
        if self._world.is_main:
            self._link.send({"verdict": verdict.text, "ranks": list(verdict.ranks)})
        self._decided.set()

    def _beat(self) -> Message:
        at, now = self._position, time.monotonic()
        seconds = now - at.phase_since
        patience = min(self._limits.slow_data_seconds, self._limits.stall_seconds)
        return {
            "step": at.step,
            "phase": at.phase,
            "phase_seconds": seconds,
            "step_seconds": now - at.step_since,
            "details": self._details() if at.phase == "data" and seconds > patience else "",
            "ended": self._ended,
            "words": self._words,
        }

    def _details(self) -> str:
        try:
            return self._data_details()
        except Exception as error:  # whoever looks after the others must not end for want of a word
            return f"(what the data workers do is not known: {one_line(error)})"

    def _look_at_data(self) -> None:
        at = self._position
        seconds = time.monotonic() - at.phase_since
        slow = at.phase == "data" and not self._ended and seconds > self._limits.slow_data_seconds
        if slow and at.phase_since != self._told_wait:
            self._told_wait = at.phase_since
            details = self._details()
            text = f"waiting for pictures for {seconds:.0f} s at step {at.step}"
            self.note(f"{text}: {details}" if details else text)

    def _take_note(self, rank: int, text: str) -> None:
        alone = self._world.size == 1
        self._notes.append(text if alone else f"{name_places([rank], self._hosts)}: {text}")

    def _tell_notes(self) -> None:
        told, self._notes = self._notes, []
        for text in told[:NUM_NOTES]:
            self._spokesman.say(text)
        if len(told) > NUM_NOTES:
            self._spokesman.say(f"and {len(told) - NUM_NOTES} more processes say the like")

    def _loss(self, verdict: Verdict) -> ProcessLost:
        """One process of each machine tells it."""
        error = ProcessLost(verdict.text)
        error.everywhere = not self._speaks_for_machine(verdict)
        return error

    def _speaks_for_machine(self, verdict: Verdict) -> bool:
        machine = [rank for rank, host in self._hosts.items() if host == self._world.host]
        return self._world.rank == min(set(machine) - set(verdict.ranks), default=self._world.rank)

    def _end_process(self, verdict: Verdict) -> None:
        """The main thread hangs, most likely in an exchange with a process that is no more: ends it from here."""
        last = threading.Timer(EXIT_SECONDS, os._exit, (ProcessLost.exit_code,))
        last.daemon = True
        last.start()  # whatever blocks below
        if self._speaks_for_machine(verdict):
            os.write(2, f"dinov2: {verdict.text}\n".encode())
        if self._world.is_main and log.hasHandlers():  # the run's log; without one the line would stand here twice
            log.error(verdict.text)
        for child in multiprocessing.active_children():
            child.kill()  # data workers, which would outlive this process where they hang themselves
        os._exit(ProcessLost.exit_code)


@contextmanager
def open_pulse(
    world: World, *, limits: PulseLimits, say: Callable[[str], None], data_details: Callable[[], str]
) -> Iterator[Pulse]:
    """The watch over all processes for the duration of a run.  Collective: every process enters at the same moment.

    `say` is called on rank 0, from another thread, with words for a person. `data_details` says, in any thread, what
    the data workers do. Inside, and at the end, ProcessLost is raised where another process ended or went silent; an
    error of this process passes through, and the others are told of it. A process whose main thread hangs after a loss
    is ended with ProcessLost's exit code. Raises LaunchError where the processes cannot reach rank 0.
    """
    link, hosts = connect(world, timeout_seconds=CONNECT_SECONDS)
    pulse = Pulse(world, limits=limits, link=link, hosts=hosts, say=say, data_details=data_details)
    try:
        yield pulse
    except BaseException as error:
        lost = pulse.close(error)
        if lost is not None:
            raise lost from error
        raise
    pulse.close(None)


class _AwakeClock:
    """Seconds in which this process was awake: a time in which it was stopped itself is no silence of the others."""

    def __init__(self, *, longest_seconds: float) -> None:
        self._longest = longest_seconds
        self._last = time.monotonic()
        self._seconds = 0.0

    def now(self) -> float:
        """To be called at least every `longest_seconds`."""
        real = time.monotonic()
        self._seconds += min(real - self._last, self._longest)
        self._last = real
        return self._seconds


class _Spokesman:
    """Says things in a thread of its own: a terminal that takes no more lines must not look like a silent process."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="pulse-words", daemon=True)
        self._thread.start()

    def say(self, text: str) -> None:
        """Soon."""
        self._lines.put(text)

    def close(self) -> None:
        """Says what is left, if it can."""
        self._lines.put(None)
        self._thread.join(timeout=EXIT_SECONDS)

    def _run(self) -> None:
        while (text := self._lines.get()) is not None:
            self._say(text)
