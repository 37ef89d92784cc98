"""One task of an array: a command line, in every process that the cluster started for it.

In: the words. Out: nothing, or an exception that marks the task as failed. A task that is told to stop (preempted, out
of time, cancelled) ends as after Ctrl-C and leaves no result, so that nobody takes it for finished; where the cluster
says so in advance, it is put back into the queue and goes on from what is on the disk: by submitit, or by the command
itself where that has something to save first.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from dinov2.errors import LaunchError
from dinov2.launch.requeue import requeue

INTERRUPTED = 130  # exit code of a command that was interrupted and can be continued
STOPPED = 128 + signal.SIGTERM  # what a shell gives for a process that this signal ended
LATER_AGAIN = (signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class Task:
    """`run(words)` gives an exit code; `umask` is the one that files of the task are made under.

    `saves_first`: the command takes SIGUSR1 and SIGUSR2 itself, saves, and puts its job back. `port`: where the
    processes of a task on this machine meet; on SLURM they find each other by its variables.
    """

    run: Callable[[Sequence[str]], int]
    words: tuple[str, ...]
    umask: int
    saves_first: bool = False
    port: int | None = None

    def __call__(self) -> None:
        """Run to the end.  Raises LaunchError for an exit code that is not 0."""
        os.umask(self.umask)
        is_main = _is_main()
        if self.port is not None:
            _describe_world(self.port)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: commands know how to end after that
        if self.saves_first:
            for number in LATER_AGAIN:  # in place of submitit's, which would put the job back a second time
                signal.signal(number, _put_back if is_main else signal.SIG_IGN)
            signal.signal(signal.SIGCONT, signal.SIG_DFL)  # comes with every other one; submitit would speak of it
        code = self.run(self.words)
        if code == INTERRUPTED:
            # No exception that submitit would write down as the result. Only the main process speaks for the task: a
            # cluster may end all processes when one fails, and the main one has a job to put back.
            sys.exit(STOPPED if is_main else 0)
        if code:
            raise LaunchError(f"the command ended with exit code {code}; its own message is above.")

    def checkpoint(self) -> Any:
        """What submitit puts back into the queue: the same words, since the command continues by itself."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _put_back(number: int, _frame: FrameType | None) -> None:
    """Before the command has taken over the signals there is nothing to save; after it, nothing left to do."""
    try:
        print(f"{signal.Signals(number).name}: {requeue()}", flush=True)
    except LaunchError as error:
        print(f"{signal.Signals(number).name}: {error}", file=sys.stderr, flush=True)
        return
    raise KeyboardInterrupt


def _is_main() -> bool:
    names = ("SLURM_PROCID", "SUBMITIT_LOCAL_GLOBALID")
    name = names[0] if os.environ.get("SUBMITIT_EXECUTOR") == "slurm" else names[1]
    return os.environ.get(name, "0") == "0"


def _describe_world(port: int) -> None:
    """torchrun's variables, for processes that submitit started on this machine."""
    from submitit import JobEnvironment

    job = JobEnvironment()
    if job.num_tasks > 1:
        os.environ |= {
            "RANK": str(job.global_rank),
            "WORLD_SIZE": str(job.num_tasks),
            "LOCAL_RANK": str(job.local_rank),
            "LOCAL_WORLD_SIZE": str(job.num_tasks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
