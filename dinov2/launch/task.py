"""One task of an array: a command line, in the process that the cluster started for it.

In: the words. Out: nothing, or an exception that marks the task as failed. A task that is told to stop (preempted, out
of time, cancelled) ends as after Ctrl-C and leaves no result, so that nobody takes it for finished; where the cluster
says so in advance, it is put back into the queue and goes on from what is on the disk.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dinov2.errors import LaunchError

INTERRUPTED = 130  # exit code of a command that was interrupted and can be continued
STOPPED = 128 + signal.SIGTERM  # what a shell gives for a process that this signal ended


@dataclass(frozen=True)
class Task:
    """`run(words)` gives an exit code; `umask` is the one that files of the task are made under."""

    run: Callable[[Sequence[str]], int]
    words: tuple[str, ...]
    umask: int

    def __call__(self) -> None:
        """Run to the end.  Raises LaunchError for an exit code that is not 0."""
        os.umask(self.umask)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: commands know how to end after that
        code = self.run(self.words)
        if code == INTERRUPTED:
            sys.exit(STOPPED)  # no exception that submitit would write down as the result
        if code:
            raise LaunchError(f"the command ended with exit code {code}; its own message is above.")

    def checkpoint(self) -> Any:
        """What submitit puts back into the queue: the same words, since the command continues by itself."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
