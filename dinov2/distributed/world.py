"""Who am I: rank, number of processes and device, as one value.

In: torchrun's environment variables, or those of a SLURM step, and `runtime.device`. Out: a `World`, and the process
group around a run.
"""

import datetime
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from dinov2.distributed.host_memory import keep_freed_memory
from dinov2.distributed.meeting import Attendant, Place, meet
from dinov2.distributed.slurm import read_step, whole_number
from dinov2.errors import LaunchError, ProcessLost

LAUNCH_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
NEEDED = LAUNCH_VARIABLES[:3]


@dataclass(frozen=True, kw_only=True)
class World:
    """One process among `size`; `rank` 0 is the one that writes files."""

    rank: int
    size: int
    local_rank: int
    device: torch.device
    local_size: int = 1  # processes of this machine
    host: str = field(default_factory=socket.gethostname)  # for people, and to tell machines apart
    main_address: str = "127.0.0.1"  # where the machine of rank 0 is reached
    main_port: int = 0  # where the processes meet; 0 for one process

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0


def read_world(environ: Mapping[str, str], *, device: str) -> World:
    """The world that torchrun's variables describe, or else the SLURM step; without either, one process.

    torchrun's variables win, so that it can be started inside a SLURM allocation. A batch script and an salloc shell
    are no step: there a plain command is one process. Raises LaunchError for half a launch (some variables without the
    others) and for a device that is not there.
    """
    host = environ.get("SLURMD_NODENAME") or socket.gethostname()
    if any(environ.get(name) for name in NEEDED):
        return _torchrun_world(environ, device=device, host=host)
    if step := read_step(environ):
        # A step may bind a GPU to each task, which then sees no other.
        index = 0 if _num_gpus() == 1 else step.local_rank
        return World(
            rank=step.rank,
            size=step.size,
            local_rank=step.local_rank,
            device=_device(device, index=index, local_size=step.local_size),
            local_size=step.local_size,
            host=host,
            main_address=step.address,
            main_port=step.port,
        )
    return World(rank=0, size=1, local_rank=0, device=_device(device, index=0, local_size=1), host=host)


def _torchrun_world(environ: Mapping[str, str], *, device: str, host: str) -> World:
    present = [name for name in LAUNCH_VARIABLES if environ.get(name)]
    missing = [name for name in LAUNCH_VARIABLES if name not in present]
    if missing:
        in_step = environ.get("SLURM_STEP_NUM_TASKS", "1") != "1"
        raise LaunchError(
            f"half a distributed launch: {', '.join(present)} set but {', '.join(missing)} not. Start with "
            "`torchrun --nproc-per-node N -m dinov2 train ...`, or unset "
            f"{', '.join(name for name in present if name in NEEDED)} "
            f"{'to be told by SLURM' if in_step else 'for one process'}."
        )
    numbers = {name: whole_number(name, environ[name]) for name in (*NEEDED, "MASTER_PORT")}
    rank, size, local_rank = numbers["RANK"], numbers["WORLD_SIZE"], numbers["LOCAL_RANK"]
    local_size = whole_number("LOCAL_WORLD_SIZE", environ.get("LOCAL_WORLD_SIZE") or str(size))
    if not 0 <= rank < size:
        raise LaunchError(f"RANK={rank} is not among WORLD_SIZE={size} processes.")
    return World(
        rank=rank,
        size=size,
        local_rank=local_rank,
        device=_device(device, index=local_rank, local_size=local_size),
        local_size=local_size,
        host=host,
        main_address=environ["MASTER_ADDR"],
        main_port=numbers["MASTER_PORT"],
    )


@contextmanager
def open_world(
    environ: Mapping[str, str] | None = None,
    *,
    device: str,
    timeout_seconds: float = 600,
    say: Callable[[str], None] | None = None,
) -> Iterator[World]:
    """The world, with a process group for its duration where there is more than one process.

    On a CPU the process keeps freed memory from here on.

    `timeout_seconds` is the longest wait for the other processes, at the start and in every exchange. `say` hears, on
    rank 0, who is awaited where that takes long. Raises LaunchError as `read_world` does, and where a process never
    comes up.
    """
    environ = os.environ if environ is None else environ
    world = read_world(environ, device=device)
    on_gpu = world.device.type == "cuda"
    keep_freed_memory(world.device)
    if on_gpu:
        torch.cuda.set_device(world.device)
        torch.cuda.init()  # type: ignore[no-untyped-call]  # else a device mesh would choose a device by itself
    if world.size == 1:
        yield world
        return
    gpu = str(torch.cuda.get_device_properties(world.device).uuid) if on_gpu else ""
    store = meet(
        Attendant(rank=world.rank, size=world.size, host=world.host, gpu=gpu),
        place=_meeting_place(environ, world=world),
        timeout_seconds=timeout_seconds,
        say=say if world.is_main else None,
    )
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        store=store,
        rank=world.rank,
        world_size=world.size,
        timeout=datetime.timedelta(seconds=timeout_seconds),
    )
    try:
        yield world
    except ProcessLost:
        if not on_gpu:  # NCCL's farewell can wait for the lost process for ever
            dist.destroy_process_group()
        raise
    except BaseException:
        dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def _meeting_place(environ: Mapping[str, str], *, world: World) -> Place:
    # torchrun says so where its own agent keeps the store, which then outlives the processes.
    by_agent = environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)
    return Place(
        address=world.main_address,
        port=world.main_port,
        serves=world.is_main and not by_agent,
        attempt=environ.get("TORCHELASTIC_RESTART_COUNT") or "0",
    )


def _num_gpus() -> int:
    return torch.cuda.device_count()


def _device(name: str, *, index: int, local_size: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    count = _num_gpus()
    if index >= count:
        raise LaunchError(
            f"runtime.device={name}: {local_size} process(es) on this machine and {count} GPU(s) visible; process "
            f"{index} has none. Start fewer processes (--nproc-per-node, --ntasks-per-node), or set runtime.device=cpu."
        )
    return torch.device("cuda", index)
