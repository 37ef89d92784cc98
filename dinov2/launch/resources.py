"""What a task may use, in SLURM's own words.

In: texts as sbatch takes them. Out: `Resources`, and the parameters that submitit hands to sbatch or to this machine.
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
SHAPE = ("nodes", "ntasks", "ntasks-per-node", "cpus-per-task", "gpus-per-node")  # what every process counts on
WARNING_SECONDS = 90  # submitit's own
NO_END_MINUTES = 365 * MINUTES_PER_DAY  # processes of this machine need some bound


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What each task is given; a task is `num_nodes` machines with `processes_per_node` processes each.

    `memory` and `gpus_per_node` are written as sbatch takes them; None leaves a thing to the cluster's default.
    """

    num_nodes: int = 1
    processes_per_node: int = 1
    gpus_per_node: str | None = None
    num_cpus: int = 4  # of each process
    memory: str | None = "8G"
    minutes: int | None = MINUTES_PER_DAY
    warning_seconds: int = WARNING_SECONDS  # the task hears of the end of its time so long before
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    max_parallel: int | None = None  # tasks that run at the same time; None: as many as the cluster lets
    setup: tuple[str, ...] = ()  # lines of shell before the processes start
    srun: tuple[str, ...] = ()  # more words for srun
    further: dict[str, str | bool] = field(default_factory=dict)  # more of sbatch's options

    @property
    def num_processes(self) -> int:
        """Of one task, over all its machines."""
        return self.num_nodes * self.processes_per_node

    def for_slurm(self, name: str) -> dict[str, Any]:
        """Parameters of `submitit.SlurmExecutor`."""
        several = self.num_processes > 1
        requeue = {} if "no-requeue" in self.further else {"requeue": True}
        # since SLURM 22.05 srun does not take it over from sbatch, and a task would be bound to a single core
        srun = [f"--cpus-per-task={self.num_cpus}"]
        if several:
            # Whatever the cluster's own habits: the first process to end ends no other one. A process may be the last
            # that writes, and one that fails is named by the others.
            srun += ["--kill-on-bad-exit=0", "--wait=0"]
        return {
            "job_name": name,
            "nodes": self.num_nodes,
            "ntasks_per_node": self.processes_per_node,
            "gpus_per_node": self.gpus_per_node,
            "time": self.minutes,
            "mem": self.memory,
            "cpus_per_task": self.num_cpus,
            "srun_args": [*srun, *self.srun],
            "setup": list(self.setup) or None,
            "signal_delay_s": self.warning_seconds,
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "array_parallelism": self.max_parallel or 1_000_000,
            "wckey": None,
            "additional_parameters": requeue | self.further,
        }

    def for_this_machine(self) -> dict[str, Any]:
        """Parameters of `submitit.LocalExecutor`."""
        return {
            "timeout_min": self.minutes or NO_END_MINUTES,
            "tasks_per_node": self.processes_per_node,
            "gpus_per_node": count_gpus(self.gpus_per_node) if self.gpus_per_node else 0,
            "signal_delay_s": self.warning_seconds,
            "setup": list(self.setup),
        }


def count_gpus(text: str) -> int:
    """GPUs of a machine as sbatch takes them: 4, or a100:4.  Raises ConfigError for any other text."""
    kind, _, number = text.rpartition(":")
    if number.isdecimal() and int(number) > 0 and (kind or ":" not in text):
        return int(number)
    raise ConfigError(f"--gpus-per-node {text}: give a number, 1 or more, or TYPE:NUMBER as in a100:4.")


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
    if found["key"] in SHAPE:
        raise ConfigError(f"--slurm {text}: {found['key']} follows from this command's own options; see --help.")
    return found["key"], found["value"] or True
