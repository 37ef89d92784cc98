"""Many files, some processes, answers in order; a process that dies costs the file it was at.

In: tasks, and a function for one of them. Out: (task, answer) pairs in the order of the tasks; the answer is None where
the worker died.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
TASKS_IN_FLIGHT = 4  # per worker; bounds memory, and hides one slow file


def run_ordered(function: Callable[[T], R], tasks: Iterable[T], *, num_workers: int) -> Iterator[tuple[T, R | None]]:
    """Apply `function`, one thread per process.  With 0 workers, here and now, in this process.

    An exception that `function` raises is raised here. Leaving the iterator early (Ctrl-C too) ends the processes.
    """
    if num_workers == 0:
        yield from ((task, function(task)) for task in tasks)
        return
    waiting = iter(tasks)
    pool = _new_pool(num_workers)
    queue: deque[tuple[T, Future[R] | None]] = deque()
    try:
        while True:
            for task in islice(waiting, num_workers * TASKS_IN_FLIGHT - len(queue)):
                queue.append((task, _submit(pool, function, task)))
            if not queue:
                return
            task, future = queue.popleft()
            try:
                if future is None:
                    raise BrokenProcessPool
                answer = future.result()
            except BrokenProcessPool:
                # Which of the files in flight did it is not known, so each is tried in a process of its own.
                pool.shutdown(wait=False)
                suspects = [(task, future), *queue]
                queue.clear()
                yield from _one_by_one(function, suspects)
                pool = _new_pool(num_workers)
            else:
                yield task, answer
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, function: Callable[[T], R], task: T) -> Future[R] | None:
    try:
        with _deaf():
            return pool.submit(function, task)
    except BrokenProcessPool:
        return None


@contextmanager
def _deaf() -> Iterator[None]:
    """No Ctrl-C while a process may be started: it inherits deafness, and is not torn out of its first imports."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _one_by_one(function: Callable[[T], R], suspects: list[tuple[T, Future[R] | None]]) -> Iterator[tuple[T, R | None]]:
    """Answers that were already there, and fresh ones from a process per task."""
    for task, future in suspects:
        answered = future is not None and future.done() and not future.cancelled()
        if future is not None and answered and not isinstance(future.exception(), BrokenProcessPool):
            yield task, future.result()
            continue
        with _new_pool(1) as alone:
            try:
                with _deaf():
                    retried = alone.submit(function, task)
                answer: R | None = retried.result()
            except BrokenProcessPool:
                answer = None
        yield task, answer


def default_workers() -> int:
    """One per core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _new_pool(num_workers: int) -> ProcessPoolExecutor:
    # spawn: a fork would copy the progress bar's thread and locks
    return ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn"), initializer=_calm)


def _calm() -> None:
    """Ctrl-C is for the parent, which ends the workers when their files are done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
