"""Real processes for tests: a function on every rank of a gloo group."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from typing import Any

from dinov2.distributed import open_world

# Imported once, by the server that every process is forked from; importing them is most of a process's life here.
PRELOADED = ["torch.distributed.fsdp", "torch.distributed.checkpoint", "dinov2.train.build"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _worker(
    function: Callable[..., Any], rank: int, size: int, port: int, arguments: tuple[Any, ...], results: Any
) -> None:
    import torch

    torch.set_num_threads(1)
    environ = {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    os.environ.update(environ)
    with open_world(device="cpu") as world:
        results.put((rank, function(world, *arguments)))


def on_ranks(function: Callable[..., Any], *arguments: Any, size: int = 2) -> list[Any]:
    """`function(world, *arguments)` on `size` processes; what each returned, by rank (plain picklable values)."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    results = context.Queue()
    port = free_port()
    workers = [
        context.Process(target=_worker, args=(function, rank, size, port, arguments, results)) for rank in range(size)
    ]
    for worker in workers:
        worker.start()
    collected: dict[int, Any] = dict(results.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join(timeout=60)
        assert worker.exitcode == 0
    return [collected[rank] for rank in range(size)]
