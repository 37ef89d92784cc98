"""What SLURM holds of a job.

In: a job's id. Out: the state of each of its tasks, and why it waits. Asks squeue: sacct knows more, but many clusters
keep no accounts.
"""

import subprocess
from dataclasses import dataclass

TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Held:
    """A task that SLURM still holds; `reason` is SLURM's word for what it waits for, `begun` when it started to run."""

    state: str
    reason: str = ""
    begun: str = ""


def queue(job_id: str) -> dict[str, str] | None:
    """The tasks of a job that SLURM still holds, id -> state; None where SLURM does not answer."""
    held = look(job_id)
    return None if held is None else {task: one.state for task, one in held.items()}


def look(job_ids: str) -> dict[str, Held] | None:
    """The tasks of a job, or of several with commas between them, that SLURM still holds; None without an answer."""
    words = ["squeue", "--noheader", "--array", f"--jobs={job_ids}", "--format=%i|%T|%r|%S"]
    try:
        answer = subprocess.run(words, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if answer.returncode:
        # an id that SLURM has forgotten is an answer too
        return {} if "Invalid job id" in answer.stderr else None
    lines = (line.strip().split("|", 3) for line in answer.stdout.splitlines() if line.strip())
    # for a task that waits, the time is SLURM's guess of the hour
    return {task: Held(state, reason, begun if state == "RUNNING" else "") for task, state, reason, begun in lines}
