"""Real processes for tests, forked from one that has imported everything: a function on every rank of a gloo group, and
a module as `python -m` runs it.
"""

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from dinov2.distributed import open_world

# Imported once, by the server that every process is forked from; importing them is most of a process's life here.
PRELOADED = [
    *("torch.distributed.fsdp", "torch.distributed.checkpoint", "torch.distributed.run"),
    *("dinov2.cli.train", "dinov2.train.run", "dinov2.train.loop", "dinov2.train.monitors", "dinov2.train.build"),
]


def warm_context() -> ForkServerContext:
    """Where processes come from."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


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
    context = warm_context()
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


def run_module(
    words: Sequence[str], *, seconds: float, environs: Sequence[Mapping[str, str]]
) -> list[subprocess.CompletedProcess[str]]:
    """What `python -m WORDS` does and says, less the start of an interpreter; one thread each.

    A process for each environment, all at the same time. Raises subprocess.TimeoutExpired where one takes longer; all
    are killed then.
    """
    with tempfile.TemporaryDirectory() as folder:
        logs = [(Path(folder) / f"{i}.out", Path(folder) / f"{i}.error") for i in range(len(environs))]
        processes = [
            warm_context().Process(target=_module, args=(list(words), dict(environ), two))
            for environ, two in zip(environs, logs, strict=True)
        ]
        try:
            for process in processes:
                process.start()
            for process in processes:
                process.join(seconds)
            codes = [process.exitcode for process in processes]
        finally:
            for process in processes:
                if process.pid is not None:  # one that could not be started has nothing to end
                    process.kill()
                    process.join()
        said = [[log.read_text() if log.exists() else "" for log in two] for two in logs]
    if None in codes:
        raise subprocess.TimeoutExpired(list(words), seconds, str(said))
    return [
        subprocess.CompletedProcess(list(words), code or 0, out, error)
        for code, (out, error) in zip(codes, said, strict=True)
    ]


def run_ranks(words: Sequence[str], *, size: int, seconds: float) -> list[subprocess.CompletedProcess[str]]:
    """`run_module` on `size` ranks of one machine, each with the variables that torchrun gives it."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size)} for rank in range(size)]
    return run_module(words, seconds=seconds, environs=[os.environ | shared | rank for rank in ranks])


def _module(words: list[str], environ: dict[str, str], logs: tuple[Path, Path]) -> None:
    import torch

    for number, log in enumerate(logs, start=1):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environ)
    torch.set_num_threads(1)
    sys.argv = list(words)
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    finally:
        sys.stdout.flush()
