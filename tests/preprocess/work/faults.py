"""What goes wrong in a worker process; importable by it."""

import ctypes
import os
import time
from typing import Any

import numpy as np

from dinov2.preprocess.work import task as task_module
from dinov2.preprocess.work.outcome import Outcome
from dinov2.preprocess.work.task import Task, convert_file


def calculate(words: str) -> Any:
    """A task for the pool alone."""
    return eval(words, {"os": os, "time": time})


def convert_or_fail(task: Task) -> Outcome:
    """`convert_file`, but some names of files are fatal."""
    name = task.source.path.name
    if name == "kills.dcm":
        os.kill(os.getpid(), 9)
    if name == "crashes.dcm":
        ctypes.string_at(0)
    if name == "hangs.dcm":
        time.sleep(600)
    if name == "eats.dcm":
        task_module.open_film = _eat  # type: ignore[assignment]
    return convert_file(task)


def _eat(*_: Any, **__: Any) -> Any:
    return np.ones(1 << 30, dtype=np.float64)
