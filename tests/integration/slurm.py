"""A SLURM to test on, and what a test asks it."""

import shutil
import subprocess
import time
from collections.abc import Callable

import pytest


def answers() -> bool:
    """A SLURM with a node that takes jobs."""
    if not shutil.which("sinfo") or not shutil.which("sbatch"):
        return False
    done = subprocess.run(["sinfo", "-h", "-r", "-o", "%N"], capture_output=True, text=True, check=False, timeout=60)
    return done.returncode == 0 and bool(done.stdout.strip())


needs_slurm = pytest.mark.skipif(
    not answers(), reason='sinfo does not answer; eval "$(bash scripts/local_slurm.sh start)" makes a SLURM that does'
)


def job_of(said: str) -> str:
    """The id in what `dinov2 submit` prints."""
    return next(line.split()[1] for line in said.splitlines() if line.startswith("job "))


def queue_of(job: str) -> dict[str, str]:
    """State of every task that SLURM still holds."""
    done = subprocess.run(["squeue", "-h", "-r", "-j", job, "-o", "%i %T"], capture_output=True, text=True, check=False)
    return dict(line.split() for line in done.stdout.splitlines())


def start_at_once(job: str) -> None:
    """Spares a job that was put back the two minutes that SLURM gives a node to recover."""
    until(lambda: "PENDING" in queue_of(job).values(), what=f"{job} waits again")
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=False)


def until(holds: Callable[[], bool], *, what: str, seconds: float = 90) -> None:
    """Waits; generous, as machines are busy."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)
