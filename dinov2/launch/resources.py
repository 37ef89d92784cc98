"""What a task may use, in SLURM's own words.

In: texts as sbatch takes them. Out: `Resources`, and the parameters that submitit hands to sbatch.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from dinov2.errors import ConfigError

MINUTES_PER_HOUR = 60
MINUTES_PER_DAY = 24 * MINUTES_PER_HOUR
TIME = re.compile(
    r"(?:(?P<days>\d+)-)?(?P<first>\d+)(?::(?P<second>\d+))?(?::(?P<third>\d+))?", re.ASCII
)  # as in the manual page of sbatch, --time
WORD = re.compile(r"(?P<key>[a-z][a-z-]*)(?:=(?P<value>.+))?", re.ASCII)
OURS = ("array", "output", "error", "open-mode", "signal", "job-name", "wrap")  # what the array itself rests on


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What each task is given. `memory` is written as sbatch takes it; None leaves a thing to the cluster's default."""

    num_cpus: int = 4
    memory: str = "8G"
    minutes: int = MINUTES_PER_DAY
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    max_parallel: int | None = None  # tasks that run at the same time; None: as many as the cluster lets
    further: dict[str, str | bool] = field(default_factory=dict)  # more of sbatch's options

    def for_slurm(self, name: str) -> dict[str, Any]:
        """Parameters of `submitit.SlurmExecutor`."""
        return {
            "job_name": name,
            "time": self.minutes,
            "mem": self.memory,
            "cpus_per_task": self.num_cpus,
            # since SLURM 22.05 srun does not take it over from sbatch, and a task would be bound to a single core
            "srun_args": [f"--cpus-per-task={self.num_cpus}"],
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "array_parallelism": self.max_parallel or 1_000_000,
            "wckey": None,
            "additional_parameters": {"requeue": True, **self.further},
        }


def minutes(text: str) -> int:
    """Minutes in a time as sbatch takes it: 90, 90:00, 24:00:00, 1-0, 1-12:30 or 1-12:30:00; seconds round up.

    Raises ConfigError for any other text, and for no time at all.
    """
    found = TIME.fullmatch(text)
    if found:
        days, *parts = (int(part) if part else 0 for part in found.group("days", "first", "second", "third"))
        if found["days"] or found["third"]:
            hours, mins, seconds = parts
        else:
            hours, (mins, seconds, _) = 0, parts
        total = days * MINUTES_PER_DAY + hours * MINUTES_PER_HOUR + mins + -(-seconds // 60)
        if total:
            return total
    raise ConfigError(f"--time {text}: give hours, minutes and seconds, such as 12:00:00, or days-hours, such as 2-12.")


def sbatch_word(text: str) -> tuple[str, str | bool]:
    """A further option of sbatch: `constraint=skylake` -> (constraint, skylake), `exclusive` -> (exclusive, True).

    Raises ConfigError for what is no option, and for those that the array itself rests on.
    """
    found = WORD.fullmatch(text.strip().removeprefix("--"))
    if not found:
        raise ConfigError(f"--slurm {text}: give an option of sbatch, such as constraint=skylake or exclusive.")
    if found["key"] in OURS:
        raise ConfigError(f"--slurm {text}: {found['key']} is set by this command and cannot be given.")
    return found["key"], found["value"] or True
