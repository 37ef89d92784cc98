"""Who am I: rank, number of processes and device, as one value.

In: torchrun's environment variables and `runtime.device`. Out: a `World`, and the process group around a run.
"""

import datetime
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from dinov2.errors import LaunchError

LAUNCH_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, kw_only=True)
class World:
    """One process among `size`; `rank` 0 is the one that writes files."""

    rank: int
    size: int
    local_rank: int
    device: torch.device
    local_size: int = 1  # processes of this machine

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0


def read_world(environ: Mapping[str, str], *, device: str) -> World:
    """The world that torchrun's variables describe; without any of them, one process.

    Raises LaunchError for half a launch (some variables without the others) and for a device that is not there.
    """
    present = [name for name in LAUNCH_VARIABLES if environ.get(name)]
    needed = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if any(name in present for name in needed):
        missing = [name for name in LAUNCH_VARIABLES if name not in present]
        if missing:
            raise LaunchError(
                f"half a distributed launch: {', '.join(present)} set but {', '.join(missing)} not. "
                "Start with `torchrun --nproc-per-node N -m dinov2 train ...`, or unset these for one process."
            )
        numbers = {name: _whole_number(name, environ[name]) for name in needed}
        rank, size, local_rank = numbers["RANK"], numbers["WORLD_SIZE"], numbers["LOCAL_RANK"]
        local_size = _whole_number("LOCAL_WORLD_SIZE", environ.get("LOCAL_WORLD_SIZE") or str(size))
        if not 0 <= rank < size:
            raise LaunchError(f"RANK={rank} is not among WORLD_SIZE={size} processes.")
    else:
        rank, size, local_rank, local_size = 0, 1, 0, 1
    place = _device(device, local_rank=local_rank)
    return World(rank=rank, size=size, local_rank=local_rank, device=place, local_size=local_size)


@contextmanager
def open_world(environ: Mapping[str, str] | None = None, *, device: str) -> Iterator[World]:
    """The world, with a process group for its duration where there is more than one process."""
    world = read_world(os.environ if environ is None else environ, device=device)
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    if world.size == 1:
        yield world
        return
    backend = "cpu:gloo,cuda:nccl" if world.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=datetime.timedelta(minutes=10))
    try:
        yield world
    finally:
        dist.destroy_process_group()


def _device(name: str, *, local_rank: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise LaunchError(
            f"runtime.device={name}: process {local_rank} of this machine has no GPU ({count} visible). "
            "Start fewer processes (--nproc-per-node), or set runtime.device=cpu."
        )
    return torch.device("cuda", local_rank)


def _whole_number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise LaunchError(f"{name}={text!r} is not a whole number.") from None
