"""Back into the queue: what a job in SLURM does when its time is over but its work is not.

In: SLURM's variables of this process. Out: the job's id, whether it is being pushed out, and the job put back, in
SLURM's own words where it refuses.
"""

import os
import subprocess

from dinov2.errors import LaunchError

TIMEOUT_SECONDS = 60
LATER_AGAIN = ("SIGUSR1", "SIGUSR2")  # what a job asks SLURM for, to hear of the end of its time
GOING_BACK = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "COMPLETING", "CONFIGURING")
_answers: dict[str, str] = {}  # job -> what was said when this process put it back


def job_in_slurm() -> str | None:
    """The id of the SLURM job that this process belongs to, as `scontrol` takes it; None outside of any."""
    job, array, task = (os.environ.get(f"SLURM_{name}") for name in ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID"))
    # The plain id of an array's last task is that of the whole array, and all of its tasks would be put back.
    return f"{array}_{task}" if array and task else job or None


def puts_back(signal_name: str | None) -> bool:
    """Whether a job that was stopped by this signal should go back into the queue.

    Yes for SIGUSR1 and SIGUSR2. SIGTERM comes from `scancel`, and then nobody wants the job back, or from SLURM as it
    pushes the job out for a more urgent one; a job that ends in the time it is granted then counts as completed and
    would not come back by itself.
    """
    if job_in_slurm() is None:
        return False
    return signal_name in LATER_AGAIN or (signal_name == "SIGTERM" and is_preempted())


def is_preempted() -> bool:
    """Whether SLURM is pushing this job out for a more urgent one, and it still runs."""
    state, since = _state()
    return state == "RUNNING" and since not in ("", "N/A")


def requeue() -> str:
    """Puts this job, or this task of an array, back into the queue; SLURM then ends its processes.

    Returns one sentence about it. A second call in the same process changes nothing. Raises LaunchError where there
    is no job or SLURM refuses, as it does for one that was submitted with --no-requeue.
    """
    job = job_in_slurm()
    if job is None:
        raise LaunchError("this process belongs to no SLURM job, so there is nothing to put back into the queue.")
    if job in _answers:
        return _answers[job]
    _answers[job] = f"job {job} is on its way back into the queue"  # a signal may come while SLURM is asked
    done = _ask("scontrol", "requeue", job)
    if done.returncode and _state()[0] not in GOING_BACK:
        del _answers[job]
        words = done.stderr.strip() or done.stdout.strip()
        raise LaunchError(
            f"SLURM did not put job {job} back into the queue: {words}. Everything is saved; submit it again to go on."
        )
    _answers[job] = f"job {job} is back in the queue; it goes on from the last checkpoint"
    return _answers[job]


def _state() -> tuple[str, str]:
    """What this job is doing, and since when it is being pushed out."""
    done = _ask("squeue", "--noheader", f"--jobs={job_in_slurm()}", "--Format=State:40,PreemptTime:40")
    words = done.stdout.split()
    return (words[0], words[1]) if len(words) == 2 else ("", "")


def _ask(*words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(words, returncode=1, stdout="", stderr=str(error))
