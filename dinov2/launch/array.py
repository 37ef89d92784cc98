"""A job array, handed to SLURM or started here.

In: a function, the words of each task, the resources. Out: an `Array`, whose folder holds the tasks and their logs; or
the script that sbatch would be given. The words name paths and the logs may name more, so all of it is readable by its
owner alone.
"""

import json
import os
import shlex
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dinov2.errors import LaunchError
from dinov2.launch.queue import queue
from dinov2.launch.records import RECORD
from dinov2.launch.resources import Resources
from dinov2.launch.task import Task

Cluster = Literal["slurm", "local"]
PRIVATE_UMASK = 0o077
MAX_TIMEOUTS = 30  # a task that runs out of time is put back into the queue this often


@dataclass(frozen=True)
class Array:
    """Tasks that were submitted together; `jobs` are submitit's, in the order of the words."""

    cluster: Cluster
    job_id: str
    folder: Path
    jobs: tuple[Any, ...]
    one_log: bool = False  # results and messages of a process go to the same file

    def log_of(self, number: int) -> Path:
        """Where the messages of a task's main process go, counted from 1."""
        paths = self.jobs[number - 1].paths
        return Path(paths.stdout if self.one_log else paths.stderr)

    def stop_here(self) -> None:
        """End the processes of a local array as after Ctrl-C; a SLURM job is left alone."""
        if self.cluster == "local":
            for job in self.jobs:
                if not job.done():
                    os.kill(int(job.job_id), signal.SIGTERM)


def submit_array(
    run: Callable[[Sequence[str]], int],
    words: Sequence[Sequence[str]],
    *,
    folder: Path,
    cluster: Cluster,
    resources: Resources,
    name: str,
    trains: bool = False,
    notes: Mapping[str, Any] | None = None,
) -> Array:
    """Submit `run(words[i])` as task i + 1 of one array; a new numbered folder in `folder` holds it.

    `trains`: the command saves and puts its job back by itself, and each of its processes has one log. `notes` are
    written down beside the job's id. Raises LaunchError where submitit or SLURM is missing, or SLURM refuses the
    resources.
    """
    check_cluster(cluster, folder=folder)
    submitit = _import_submitit()
    before = os.umask(PRIVATE_UMASK)
    try:
        ports = [_free_port() if cluster == "local" else None for _ in words]
        tasks = [
            Task(run, tuple(one), before, saves_first=trains, port=port) for one, port in zip(words, ports, strict=True)
        ]
        home = _new_folder(folder)
        executor = _executor(submitit, home, cluster=cluster, resources=resources, name=name)
        executor.update_parameters(stderr_to_stdout=trains)
        try:
            with _outside_any_job(), _deaf(), _apart(home / "controllers.log", cluster=cluster):
                jobs = executor.submit_array(tasks)
        except (submitit.core.utils.FailedSubmissionError, submitit.core.utils.FailedJobError) as error:
            shutil.rmtree(home)
            raise LaunchError(f"SLURM did not take the job:\n{_words_of_sbatch(error)}") from None
        job_id = str(jobs[0].job_id).split("_")[0]
        record = {"cluster": cluster, "job_id": job_id, "tasks": len(jobs)}
        record |= {"ids": [str(job.job_id) for job in jobs], **(notes or {})}
        (home / RECORD).write_text(json.dumps(record) + "\n", encoding="utf-8")
    finally:
        os.umask(before)
    return Array(cluster, job_id, home, tuple(jobs), one_log=trains)


def script_of(*, folder: Path, resources: Resources, name: str, num_tasks: int, trains: bool = False) -> str:
    """The very text that `submit_array` would hand to sbatch now. Needs no SLURM.

    Raises LaunchError where submitit is missing.
    """
    _import_submitit()
    # submitit shows a script only as it submits it; this is the function it writes it with
    from submitit.slurm.slurm import _make_sbatch_string

    home = folder / f"{_next_number(folder):04d}"
    home = home.absolute()
    return str(
        _make_sbatch_string(
            command=f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(home))}",
            folder=home,
            map_count=num_tasks if num_tasks > 1 else None,
            stderr_to_stdout=trains,
            **resources.for_slurm(name),
        )
    )


def check_cluster(cluster: Cluster, *, folder: Path) -> None:
    """Raises LaunchError where nothing can be submitted from here, or an earlier array of this folder still runs."""
    _import_submitit()
    if cluster == "local":
        return
    if not shutil.which("sbatch"):
        raise LaunchError("sbatch is not on the PATH. Submit where SLURM is at hand, or use --cluster local.")
    if "%" in str(folder.absolute()):
        raise LaunchError(f"{folder}: SLURM reads a % in the path of a log as a pattern. Give a --log-dir without one.")
    for record in sorted(folder.glob(f"*/{RECORD}"))[-1:]:
        known = json.loads(record.read_text(encoding="utf-8"))
        if known["cluster"] == "slurm" and queue(known["job_id"]):
            raise LaunchError(
                f"job {known['job_id']} for this output is still in the queue. Wait for its end, or stop it: "
                f"scancel {known['job_id']}"
            )


def _import_submitit() -> Any:
    """The library, or a LaunchError that says how to get it."""
    try:
        import submitit
    except ImportError as error:
        raise LaunchError("submitit is not installed. Install it:  pip install 'dinov2[slurm]'") from error
    return submitit


def _executor(submitit: Any, folder: Path, *, cluster: Cluster, resources: Resources, name: str) -> Any:
    if cluster == "local":
        executor = submitit.LocalExecutor(folder)
        executor.update_parameters(**resources.for_this_machine())
        return executor
    executor = submitit.SlurmExecutor(folder, max_num_timeout=MAX_TIMEOUTS)
    executor.update_parameters(**resources.for_slurm(name))
    return executor


def _new_folder(parent: Path) -> Path:
    """A subfolder under the next free number: job ids can come again, and results of another array must not be taken
    for ours.
    """
    parent.mkdir(parents=True, exist_ok=True)
    while True:
        number = _next_number(parent)
        try:
            (parent / f"{number:04d}").mkdir()
        except FileExistsError:
            continue
        return parent / f"{number:04d}"


def _next_number(parent: Path) -> int:
    taken = [int(path.name) for path in parent.iterdir() if path.name.isdecimal()] if parent.is_dir() else []
    return max(taken, default=0) + 1


def _free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _outside_any_job() -> Iterator[None]:
    """Hide the variables of a job that this process itself runs in; sbatch would take them for wishes."""
    hidden = {}
    if "SLURM_JOB_ID" in os.environ:
        ours = [name for name in os.environ if name.startswith(("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_"))]
        hidden = {name: os.environ.pop(name) for name in ours if name != "SLURM_CONF"}
    try:
        yield
    finally:
        os.environ.update(hidden)


@contextmanager
def _deaf() -> Iterator[None]:
    """No Ctrl-C while processes are started here: they inherit deafness, and end by `Array.stop_here`."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _apart(log: Path, *, cluster: Cluster) -> Iterator[None]:
    """Processes that are started here do not hold on to our output: its reader would wait for their end."""
    if cluster == "slurm":
        yield
        return
    sys.stdout.flush()
    before = [os.dup(number) for number in (1, 2)]
    with log.open("w") as stream:
        try:
            for number in (1, 2):
                os.dup2(stream.fileno(), number)
            yield
        finally:
            for number, place in zip((1, 2), before, strict=True):
                os.dup2(place, number)
                os.close(place)


def _words_of_sbatch(error: Exception) -> str:
    """What sbatch said; submitit sets its own words before it."""
    lines = [line for line in str(error).splitlines() if line.startswith("sbatch:")]
    return "\n".join(lines) or str(error)
