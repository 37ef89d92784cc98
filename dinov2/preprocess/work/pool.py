"""Many files, some processes; a file that kills its process, or does not end, costs that file.

In: tasks, and a function for one of them. Out: (task, answer) pairs as they are finished, so that a slow film holds up
no other; an answer is a value, `Lost.DIED` or `Lost.TIMED_OUT`.
"""

import gc
import importlib
import multiprocessing
import os
import queue
import resource
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from multiprocessing import connection, resource_tracker
from typing import TypeVar

from pebble import ProcessExpired, ProcessPool

from dinov2.errors import LaunchError

T = TypeVar("T")
R = TypeVar("R")
TASKS_IN_FLIGHT = 4  # per worker: none waits for the parent, and few pictures lie unfinished
ONE_THREAD = (  # read by the libraries when a worker imports them
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    "OPENCV_FOR_THREADS_NUM",
    "OPJ_NUM_THREADS",
)
MEGABYTE = 1 << 20


class Lost(Enum):
    """Why there is no answer."""

    DIED = "the worker died"
    TIMED_OUT = "the time limit passed"


@dataclass(frozen=True)
class Allowance:
    """What one task may cost; only workers are held to it."""

    seconds: float
    memory_mb: int  # of a worker's own data; 0: no limit


def run_tasks(
    function: Callable[[T], R], tasks: Iterable[T], *, num_workers: int, allowance: Allowance
) -> Generator[tuple[T, R | Lost], None, None]:
    """Apply `function`, one thread per process.  With 0 workers, here and now, in this process and without limits.

    An exception that `function` raises is raised here. Leaving the iterator early (Ctrl-C too) ends the processes.
    Raises LaunchError where no worker can be started.
    """
    if num_workers == 0:
        yield from ((task, function(task)) for task in tasks)
        return
    with _open_pool(num_workers, memory_mb=allowance.memory_mb) as pool:
        waiting = iter(tasks)
        finished: queue.SimpleQueue[tuple[T, Future[R]]] = queue.SimpleQueue()
        in_flight = 0
        while True:
            for task in islice(waiting, num_workers * TASKS_IN_FLIGHT - in_flight):
                with _deaf():  # the first one starts the processes, and the threads that start later ones
                    future = pool.schedule(function, args=(task,), timeout=allowance.seconds)
                future.add_done_callback(lambda done, task=task: finished.put((task, done)))
                in_flight += 1
            if not in_flight:
                return
            task, done = finished.get()
            in_flight -= 1
            answer: R | Lost = _answer(done)
            yield task, answer


def default_workers() -> int:
    """One per core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _answer(done: "Future[R]") -> "R | Lost":
    try:
        return done.result()
    except ProcessExpired:
        return Lost.DIED
    except TimeoutError:
        return Lost.TIMED_OUT
    except (BrokenProcessPool, CancelledError) as error:
        raise LaunchError(
            "the worker processes cannot be kept running (out of memory or of processes?). Give fewer --workers, or "
            "raise limits.memory_mb; --workers 0 works in this process and shows what is wrong."
        ) from error


@contextmanager
def _open_pool(num_workers: int, *, memory_mb: int) -> Iterator[ProcessPool]:
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    # spawn: a fork would copy the progress bar's thread and locks
    context = multiprocessing.get_context("spawn")
    resource_tracker.ensure_running()  # now: while it starts it would lift the deafness of whoever starts it
    pool = ProcessPool(num_workers, context=context, initializer=_settle_in, initargs=(memory_mb,))
    try:
        yield pool
    finally:
        pool.stop()
        pool.join()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _deaf() -> Iterator[None]:
    """No Ctrl-C for whatever starts here: threads and processes inherit it, so that a terminal's Ctrl-C reaches this
    thread alone, which then ends the others.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _settle_in(memory_mb: int) -> None:
    """Make this process a worker: quiet, bounded, and gone when its parent is."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # ends it even within a decoder
    nowhere = os.open(os.devnull, os.O_RDWR)  # what libraries print on damaged files may hold patient data
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    threading.Thread(target=_follow_parent, daemon=True).start()
    importlib.import_module("dinov2.preprocess.work.task")  # now: the first task's time limit is not for imports
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(0)
    if "SimpleITK" in sys.modules:
        sys.modules["SimpleITK"].ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    gc.freeze()  # what was imported is never searched for garbage
    if memory_mb:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = memory_mb * MEGABYTE
        resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))


def _follow_parent() -> None:
    """A parent that was killed leaves no worker behind."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
