"""How far the tasks of an array are.

In: an `Array`. Out: `Progress` values until every task has ended. A task has succeeded or failed where its result lies
in the array's folder; one without a result that SLURM no longer holds was killed or cancelled.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from dinov2.launch.array import Array, queue

FIRST_PAUSE_SECONDS = 1.0
LAST_PAUSE_SECONDS = 30.0  # between two looks; a cluster's controller serves many
PAUSE_GROWTH = 1.2
LOCAL_PAUSE_SECONDS = 0.5
LATE_SECONDS = 20.0  # a network file system may show a result this long after its task has ended


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
    states: dict[int, str] = dict.fromkeys(range(1, len(array.jobs) + 1), "waiting")
    missing_since: dict[int, float] = {}
    pause = FIRST_PAUSE_SECONDS
    while True:
        if array.cluster == "slurm":
            _look_at_slurm(array, states=states, missing_since=missing_since)
        else:
            _look_here(array, states=states)
        progress = Progress(
            done=_numbers(states, "done"),
            failed=_numbers(states, "failed"),
            running=_numbers(states, "running"),
            waiting=_numbers(states, "waiting"),
        )
        yield progress
        if progress.has_ended:
            return
        time.sleep(pause if array.cluster == "slurm" else LOCAL_PAUSE_SECONDS)
        pause = min(pause * PAUSE_GROWTH, LAST_PAUSE_SECONDS)


def _look_at_slurm(array: Array, *, states: dict[int, str], missing_since: dict[int, float]) -> None:
    held = queue(array.job_id)
    files = {path.name for path in array.folder.iterdir()}  # after the question, so that no result falls between
    for number in (n for n, state in states.items() if state in ("running", "waiting")):
        job = array.jobs[number - 1]
        if job.paths.result_pickle.name in files:
            states[number] = _outcome(array, number)
        elif held is None:
            continue
        elif job.job_id in held:
            missing_since.pop(number, None)
            states[number] = "waiting" if held[job.job_id] == "PENDING" else "running"
        elif time.monotonic() - missing_since.setdefault(number, time.monotonic()) > LATE_SECONDS:
            states[number] = "failed"


def _look_here(array: Array, *, states: dict[int, str]) -> None:
    for number in (n for n, state in states.items() if state in ("running", "waiting")):
        job = array.jobs[number - 1]
        if not job.done():
            states[number] = "running"
        else:
            states[number] = _outcome(array, number) if job.paths.result_pickle.exists() else "failed"


def _outcome(array: Array, number: int) -> str:
    return "failed" if array.jobs[number - 1].exception() else "done"


def _numbers(states: dict[int, str], state: str) -> tuple[int, ...]:
    return tuple(number for number, one in states.items() if one == state)
