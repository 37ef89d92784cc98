"""Processes that are broken on purpose, and what they leave behind."""

import multiprocessing
import os
import signal
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from tests.distributed.processes import free_port

WAIT_SECONDS = 120


class Ending(NamedTuple):
    """How a process ended."""

    code: int
    said: list[str]  # lines of stdout
    errors: str


def _rank(environ: dict[str, str], words: list[str], log: Path) -> None:
    from tests.distributed import breaking

    os.setsid()  # so that data workers can be ended with it
    for stream, descriptor in (("out", 1), ("err", 2)):
        file = os.open(log.with_suffix(f".{stream}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
    os.environ.update(environ)
    code = breaking.main(words)
    sys.stdout.flush()
    sys.exit(code)


class Crew:
    """`size` processes of `breaking.py`, started from a process that has imported everything already."""

    def __init__(self, folder: Path, *words: str, size: int, **environ: str) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.distributed.breaking"])
        port = free_port()
        self._logs = [folder / f"rank{rank}" for rank in range(size)]
        self.processes = []
        for rank in range(size):
            launch = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_PORT": port}
            variables = {name: str(number) for name, number in launch.items()} if size > 1 else {}
            given = {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"} | variables | environ
            process = context.Process(target=_rank, args=(given, list(words), self._logs[rank]))
            process.start()
            self.processes.append(process)

    def __enter__(self) -> "Crew":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes:
            for end in (process.kill, partial(os.killpg, process.pid or 0, signal.SIGKILL)):  # and its data workers
                with suppress(ProcessLookupError):
                    end()

    def ending(self, rank: int) -> Ending:
        """Waits for the process of a rank."""
        process = self.processes[rank]
        process.join(timeout=WAIT_SECONDS)
        assert process.exitcode is not None, f"rank {rank} does not end:\n{self._read(rank, 'err')}"
        return Ending(process.exitcode, self.said(rank), self._read(rank, "err"))

    def endings(self) -> list[Ending]:
        """Of all, by rank."""
        return [self.ending(rank) for rank in range(len(self.processes))]

    def said(self, rank: int) -> list[str]:
        """Lines of stdout so far."""
        return self._read(rank, "out").splitlines()

    def wait_for(self, text: str, *, rank: int = 0) -> str:
        """The first line of a rank that holds `text`."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            for line in self.said(rank):
                if text in line:
                    return line
            time.sleep(0.1)
        raise AssertionError(f"rank {rank} never said {text!r}; it said {self.said(rank)}\n{self._read(rank, 'err')}")

    def _read(self, rank: int, stream: str) -> str:
        file = self._logs[rank].with_suffix(f".{stream}")
        return file.read_text() if file.exists() else ""
