"""A SLURM job step as a world: which task this is, of how many, and where they meet.

In: the variables that `srun` gives every task of a step. Out: a `Step`, or None where there is no step of several
tasks. A batch script and an salloc shell are no steps, although SLURM_PROCID and SLURM_NTASKS may be set there: what
they lack is SLURM_STEP_NUM_TASKS, which `srun` alone sets.
Source: the section "OUTPUT ENVIRONMENT VARIABLES" of srun(1), and tries with SLURM 22.05.
"""

import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from dinov2.errors import LaunchError

NEEDED = (
    *("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"),
    *("SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE", "SLURM_STEP_NODELIST"),
)
# The ports of a job are a function of its numbers, so that its processes need not agree on them. They lie below the
# ports that the system hands out by itself. The factor keeps steps of one job, and neighbouring jobs, apart.
FIRST_PORT, NUM_PORTS, PORTS_PER_STEP = 16_384, 16_381, 4_099
SCONTROL_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Step:
    """One task of a step of several."""

    rank: int
    size: int
    local_rank: int
    local_size: int  # tasks of the step on this node
    address: str
    port: int


def read_step(environ: Mapping[str, str]) -> Step | None:
    """The step of several tasks that this process belongs to; None without one.

    MASTER_ADDR and MASTER_PORT, where set, win over the first node of the step and the port derived from job and step.
    Raises LaunchError where variables of the step are missing or contradict each other.
    """
    if environ.get("SLURM_STEP_NUM_TASKS", "1") == "1":
        return None
    missing = [name for name in NEEDED if not environ.get(name)]
    if missing:
        raise LaunchError(
            f"half a SLURM step: SLURM_STEP_NUM_TASKS={environ['SLURM_STEP_NUM_TASKS']} but {', '.join(missing)} not "
            "set. Start with `srun dinov2 train ...`, or unset SLURM_STEP_NUM_TASKS for one process."
        )
    _refuse_leftovers(environ)
    numbers = {name: whole_number(name, environ[name]) for name in NEEDED[:6]}
    rank, size, local_rank = (numbers[f"SLURM_{name}"] for name in ("PROCID", "STEP_NUM_TASKS", "LOCALID"))
    per_node = tasks_per_node(environ["SLURM_STEP_TASKS_PER_NODE"])
    node = numbers["SLURM_NODEID"]
    if not 0 <= rank < size or sum(per_node) != size or not 0 <= node < len(per_node):
        raise LaunchError(
            f"SLURM_PROCID={rank}, SLURM_STEP_NUM_TASKS={size}, SLURM_NODEID={node} and SLURM_STEP_TASKS_PER_NODE="
            f"{environ['SLURM_STEP_TASKS_PER_NODE']} contradict each other. Start with `srun dinov2 train ...` "
            "(a heterogeneous job is not supported)."
        )
    derived = FIRST_PORT + (numbers["SLURM_JOB_ID"] + PORTS_PER_STEP * numbers["SLURM_STEP_ID"]) % NUM_PORTS
    return Step(
        rank=rank,
        size=size,
        local_rank=local_rank,
        local_size=per_node[node],
        address=environ.get("MASTER_ADDR") or _first_address(environ["SLURM_STEP_NODELIST"], num_nodes=len(per_node)),
        port=whole_number("MASTER_PORT", environ.get("MASTER_PORT") or str(derived)),
    )


def _refuse_leftovers(environ: Mapping[str, str]) -> None:
    """A job that was submitted from within a step inherits that step's variables; its own disagree with them."""
    job, step = environ.get("SLURM_NTASKS"), environ["SLURM_STEP_NUM_TASKS"]
    if job not in (None, "", step):
        raise LaunchError(
            f"SLURM_STEP_NUM_TASKS={step} but SLURM_NTASKS={job}: the variables of another step were inherited, as "
            "happens to a job that is submitted from within one. For one process unset SLURM_STEP_NUM_TASKS; for "
            "several start with `srun dinov2 train ...`."
        )


def tasks_per_node(text: str) -> list[int]:
    """SLURM's short form as a number per node: `4(x2),1` is [4, 4, 1].  Raises LaunchError."""
    counts: list[int] = []
    for part in text.split(","):
        tasks, _, times = part.partition("(x")
        count = whole_number("SLURM_STEP_TASKS_PER_NODE", tasks)
        counts += [count] * (whole_number("SLURM_STEP_TASKS_PER_NODE", times.rstrip(")")) if times else 1)
    return counts


def whole_number(name: str, text: str) -> int:
    """`text` as a number.  Raises LaunchError that names the variable."""
    try:
        return int(text)
    except ValueError:
        raise LaunchError(f"{name}={text!r} is not a whole number.") from None


def _first_address(nodes: str, *, num_nodes: int) -> str:
    """Where the first node of a list is reached."""
    if num_nodes == 1:
        return "127.0.0.1"
    first = _scontrol("show", "hostnames", nodes).split()[0]
    try:
        socket.getaddrinfo(first, None)
    except OSError:
        # SLURM's own name for a node need not be one that the network knows.
        words = _scontrol("show", "node", first, "--oneliner").split()
        return next((word.removeprefix("NodeAddr=") for word in words if word.startswith("NodeAddr=")), first)
    return first


def _scontrol(*words: str) -> str:
    command = ("scontrol", *words)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SCONTROL_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        said = (error.stderr or "").strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        raise LaunchError(
            f"`{' '.join(command)}` failed ({said}). Inside a container that lacks scontrol, set MASTER_ADDR "
            'before srun: export MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"'
        ) from error
    if not done.stdout.strip():
        raise LaunchError(f"`{' '.join(command)}` says nothing; set MASTER_ADDR to the first node of the job.")
    return done.stdout
