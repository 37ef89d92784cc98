"""How far the tasks of an array are.

In: an `Array`. Out: `Progress` values until every task has ended, or what the main process of one task writes and how
it fares. A task has succeeded or failed where its main process left a result in the array's folder; one without a
result that SLURM no longer holds was killed or cancelled.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dinov2.launch.array import Array
from dinov2.launch.queue import Held, look

FIRST_PAUSE_SECONDS = 1.0
LAST_PAUSE_SECONDS = 30.0  # between two looks; a cluster's controller serves many
PAUSE_GROWTH = 1.2
LOCAL_PAUSE_SECONDS = 0.5
LATE_SECONDS = 20.0  # a network file system may show a result this long after its task has ended
TAIL_SECONDS = 0.5  # between two looks at a log
CHUNK = 1 << 20


@dataclass(frozen=True)
class Progress:
    """Tasks by number, counted from 1."""

    done: tuple[int, ...]
    failed: tuple[int, ...]
    running: tuple[int, ...]
    waiting: tuple[int, ...]

    @property
    def has_ended(self) -> bool:
        """Nothing runs and nothing will."""
        return not self.running and not self.waiting


def watch(array: Array) -> Iterator[Progress]:
    """Look from time to time; the last value has ended."""
    eye = _Eye(array)
    while True:
        progress = eye.look()
        yield progress
        if progress.has_ended:
            return
        time.sleep(eye.pause)


def follow(array: Array) -> Iterator[str | Held]:
    """What the main process of a single task writes, as it comes, and every change of what SLURM says of it.

    A state of "DONE" or "FAILED" is the last value.
    """
    eye, log = _Eye(array), _Tail(array.log_of(1))
    before: Held | None = None
    next_look = 0.0
    result = Path(array.jobs[0].paths.result_pickle)
    while True:
        if time.monotonic() >= next_look or result.exists():
            progress = eye.look()
            next_look = time.monotonic() + eye.pause
            if text := log.read():
                yield text
            if progress.has_ended:
                yield Held("DONE" if progress.done else "FAILED")
                return
            if eye.held and (now := next(iter(eye.held.values()))) != before:
                yield now
                before = now
        elif text := log.read():
            yield text
        time.sleep(TAIL_SECONDS)


class _Eye:
    """Looks at all tasks of an array, ever more seldom."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self._states = dict.fromkeys(range(1, len(array.jobs) + 1), "waiting")
        self._missing_since: dict[int, float] = {}
        self.pause = FIRST_PAUSE_SECONDS if array.cluster == "slurm" else LOCAL_PAUSE_SECONDS
        self.held: dict[str, Held] = {}  # as SLURM said at the last look

    def look(self) -> Progress:
        """How it is now; asks SLURM once."""
        if self._array.cluster == "slurm":
            self._look_at_slurm()
            self.pause = min(self.pause * PAUSE_GROWTH, LAST_PAUSE_SECONDS)
        else:
            self._look_here()
        return Progress(*(self._numbers(state) for state in ("done", "failed", "running", "waiting")))

    def _look_at_slurm(self) -> None:
        held = look(self._array.job_id)
        # after the question, so that no result falls between
        files = {path.name for path in self._array.folder.iterdir()}
        self.held = held or {}
        for number in (*self._numbers("running"), *self._numbers("waiting")):
            job = self._array.jobs[number - 1]
            if job.paths.result_pickle.name in files:
                self._states[number] = self._outcome(number)
            elif held is None:
                continue
            elif job.job_id in held:
                self._missing_since.pop(number, None)
                self._states[number] = "waiting" if held[job.job_id].state == "PENDING" else "running"
            elif time.monotonic() - self._missing_since.setdefault(number, time.monotonic()) > LATE_SECONDS:
                self._states[number] = "failed"

    def _look_here(self) -> None:
        for number in (*self._numbers("running"), *self._numbers("waiting")):
            job = self._array.jobs[number - 1]
            if not job.done():
                self._states[number] = "running"
            else:
                self._states[number] = self._outcome(number) if job.paths.result_pickle.exists() else "failed"

    def _outcome(self, number: int) -> str:
        """By the main process: it is the last to end, and the others may leave nothing."""
        return "failed" if self._array.jobs[number - 1].task(0).exception() else "done"

    def _numbers(self, state: str) -> tuple[int, ...]:
        return tuple(number for number, one in self._states.items() if one == state)


class _Tail:
    """What a file gained since the last reading; the file may not be there yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = 0

    def read(self) -> str:
        """New whole lines, or nothing."""
        try:
            with self._path.open("rb") as stream:
                stream.seek(self._place)
                data = stream.read(CHUNK)
        except FileNotFoundError:
            return ""
        whole = data[: data.rfind(b"\n") + 1] or (data if len(data) == CHUNK else b"")
        self._place += len(whole)
        return whole.decode("utf-8", errors="replace")
