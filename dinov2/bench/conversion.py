"""What the conversion benchmark does inside a real worker process. Never imports torch, as no worker does.

In: a `Trial`: one film and where its pictures go. Out: seconds and bytes of that process.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dinov2.bench.resident import resident_peak
from dinov2.errors import Dinov2Error
from dinov2.preprocess.work.task import Task, convert_file


@dataclass(frozen=True)
class Trial:
    """One film, for both ways of converting it."""

    task: Task
    plain_picture: Path  # where the plain loop writes; ours goes where the task says
    repeats: int = 1


@dataclass(frozen=True)
class Spent:
    """Seconds of one conversion."""

    core: float  # of this process's processor time
    clock: float


def convert(trial: Trial) -> int:
    """Ours.  -> peak resident bytes of this process so far"""
    outcome = convert_file(trial.task)
    if not outcome.pictures:
        raise Dinov2Error(f"the benchmark's own film was turned away: {outcome.reason} ({outcome.message})")
    return resident_peak()


def convert_plainly(trial: Trial) -> int:
    """The plain loop.  -> peak resident bytes of this process so far"""
    from dinov2.bench.plain_preprocess import plain_convert  # not at the top: it would weigh on our workers' memory

    plain_convert(trial.task.source.path, trial.plain_picture)
    return resident_peak()


def take_turns(trial: Trial) -> list[tuple[Spent, Spent]]:
    """Ours and the plain loop one after the other, `repeats` times; a first turn of each warms up and is not given."""
    turns = [(_timed(convert, trial), _timed(convert_plainly, trial)) for _ in range(trial.repeats + 1)]
    return turns[1:]


def _timed(work: Callable[[Trial], object], trial: Trial) -> Spent:
    core, clock = time.process_time(), time.perf_counter()
    work(trial)
    return Spent(core=time.process_time() - core, clock=time.perf_counter() - clock)
