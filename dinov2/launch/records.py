"""Which job a run was given to.

In: run folders. Out: the newest `Job` of each, as `submit_array` wrote it down in the run's own `logs/jobs`, or in that
of the sweep whose folder it lies in.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

RECORD = "array.json"
JOBS = Path("logs") / "jobs"


@dataclass(frozen=True)
class Job:
    """A task of the cluster; `id` is as squeue writes it."""

    cluster: str
    id: str
    log: Path  # of the main process


def jobs_folder(output: Path) -> Path:
    """Where the jobs of a run or of a sweep are written down."""
    return output / JOBS


def newest_jobs(runs: Sequence[Path]) -> dict[Path, Job]:
    """The newest job of each run that was submitted."""
    found: dict[Path, Job] = {}
    for folder in dict.fromkeys(run.parent for run in runs):
        found |= dict(_read(folder))
    for run in runs:
        found |= dict(_read(run))
    return {run: found[run] for run in runs if run in found}


def _read(output: Path) -> Iterator[tuple[Path, Job]]:
    """Run and job, the oldest first."""
    for record in sorted(jobs_folder(output).glob(f"*/{RECORD}")):
        try:
            known = json.loads(record.read_text(encoding="utf-8"))
            cluster, ids, runs = str(known["cluster"]), list(known["ids"]), list(known.get("runs", ["."]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        for name, task in zip(runs, ids, strict=False):
            run = output / name
            yield run, Job(cluster, task, record.parent / f"{task}_0_log.out")
