"""SLURM: whether this machine can submit, what partitions there are, and whether we are in a job.

In: SLURM's own commands and variables. Out: findings.
"""

import importlib.util
import shutil
import subprocess
from collections.abc import Iterator

from dinov2.config.schema import Config
from dinov2.doctor.finding import Finding, first_line
from dinov2.launch import job_in_slurm

TOPIC = "cluster"
SECONDS = 20.0  # that sinfo may take to answer
FORM = "%P|%a|%D|%c|%G|%l"  # partition, state, machines, cores, GPUs, longest time
MOST_PARTITIONS = 12


def examine(_: Config) -> tuple[Finding, ...]:
    """The job that we are in, the partitions, and what submits."""
    return tuple(_findings())


def _findings() -> Iterator[Finding]:
    job = job_in_slurm()
    if job is not None:
        yield Finding(topic=TOPIC, name="job", value=f"this is job {job}")
    program = shutil.which("sinfo")
    if program is None:
        yield Finding(topic=TOPIC, name="SLURM", value="not on this machine; dinov2 train and torchrun need none")
        return
    try:
        told = subprocess.run(
            [program, "--noheader", f"--format={FORM}"], check=True, capture_output=True, text=True, timeout=SECONDS
        ).stdout
    except subprocess.CalledProcessError as error:
        yield _silent((error.stderr.strip() or f"sinfo ended with {error.returncode}").splitlines()[0])
        return
    except (subprocess.SubprocessError, OSError) as error:
        yield _silent(first_line(error))
        return
    yield from _partitions(told)
    if importlib.util.find_spec("submitit") is None:
        yield Finding(
            topic=TOPIC,
            name="submit",
            value="submitit absent",
            verdict="absent",
            why="dinov2 submit needs it",
            mend="pip install 'dinov2[slurm]'",
        )


def _silent(why: str) -> Finding:
    return Finding(topic=TOPIC, name="SLURM", value="sinfo does not answer", verdict="note", why=why)


def _partitions(told: str) -> Iterator[Finding]:
    rows = [line.split("|") for line in told.splitlines() if line.count("|") == FORM.count("|")]
    for partition, state, machines, cores, gpus, longest in rows[:MOST_PARTITIONS]:
        has_gpus = "" if gpus in ("(null)", "N/A", "") else f", {gpus}"
        words = f"{machines} machine(s) of {cores} cores{has_gpus}, at most {longest}, {state}"
        yield Finding(topic=TOPIC, name=f"partition {partition}", value=words)
    if len(rows) > MOST_PARTITIONS:
        yield Finding(topic=TOPIC, name="partitions", value=f"{len(rows) - MOST_PARTITIONS} more: sinfo")
