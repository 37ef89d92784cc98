"""What every data worker does right now, for all processes of this machine to see.

In: a worker's notes: which picture it reads. Out: words for a person, whenever the main process asks.
"""

import os
import time
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

ABSENT, WAITS, READS, CROPS = range(4)
MAX_PATH_BYTES = 1024
NUM_NAMED = 4
MAX_LOOKS = 100  # at a line that is being written
SEQUENCE, STATE, PID, POSITION, SINCE, LENGTH, NUM_FIELDS = range(7)


class WorkerBoard:
    """One line a worker, in shared memory; a loader without workers uses one line too.

    Each line has one writer; it writes an odd number before a change and an even one after it, so that a reader sees
    whether it read in between.
    """

    def __init__(self, num_workers: int) -> None:
        self.num_workers = num_workers
        lines = max(1, num_workers)
        self._numbers = torch.zeros(lines, NUM_FIELDS, dtype=torch.int64)
        self._paths = torch.zeros(lines, MAX_PATH_BYTES, dtype=torch.uint8)
        for tensor in (self._numbers, self._paths):
            tensor.share_memory_()  # type: ignore[no-untyped-call]

    def slot(self, worker: int) -> "Slot":
        """The line of a worker, for that worker to write."""
        return Slot(self._numbers[worker].numpy(), self._paths[worker].numpy())

    def words(self) -> str:
        """`worker 1 (process 77) reads /x/y.png (position 81) for 300 s; 3 waiting to be asked`, the longest first."""
        lines = [self._read(worker) for worker in range(len(self._numbers))]
        now = time.monotonic_ns()
        busy = []
        for worker, line in enumerate(lines):
            if line.state in (READS, CROPS):
                who = f"worker {worker} (process {line.pid})" if self.num_workers else "the main process"
                seconds = (now - line.since) / 1e9
                does = "reads" if line.state == READS else "crops"
                busy.append((seconds, f"{who} {does} {line.path} (position {line.position}) for {seconds:.0f} s"))
        parts = [text for _, text in sorted(busy, reverse=True)[:NUM_NAMED]]
        counts = {
            "more at work": len(busy) - NUM_NAMED,
            "waiting to be asked": sum(line.state == WAITS for line in lines),
            "not started": sum(line.state == ABSENT for line in lines),
        }
        return "; ".join(parts + [f"{count} {what}" for what, count in counts.items() if count > 0])

    def _read(self, worker: int) -> "_Line":
        numbers, path = self._numbers[worker].numpy(), self._paths[worker].numpy()
        for _ in range(MAX_LOOKS):
            copy, text = numbers.copy(), path.tobytes()
            if copy[SEQUENCE] % 2 == 0 and copy[SEQUENCE] == numbers[SEQUENCE]:
                break
        state, pid, position, since, length = (int(copy[field]) for field in (STATE, PID, POSITION, SINCE, LENGTH))
        return _Line(state, pid, position, since, text[:length].decode(errors="replace"))


class _Line(NamedTuple):
    state: int
    pid: int
    position: int
    since: int  # nanoseconds
    path: str


class Slot:
    """A worker's own line."""

    def __init__(self, numbers: NDArray[np.int64], path: NDArray[np.uint8]) -> None:
        self._numbers, self._path = numbers, path

    def reads(self, position: int, path: str) -> None:
        """From now on the picture at a position of the sample stream is read."""
        encoded = np.frombuffer(path.encode()[-MAX_PATH_BYTES:], dtype=np.uint8)
        self._numbers[SEQUENCE] += 1
        self._path[: len(encoded)] = encoded
        self._numbers[LENGTH] = len(encoded)
        self._numbers[POSITION] = position
        self._write_state(READS)

    def crops(self) -> None:
        """From now on that picture is cropped."""
        self._numbers[SEQUENCE] += 1
        self._write_state(CROPS)

    def waits(self) -> None:
        """From now on nothing is to be done."""
        self._numbers[SEQUENCE] += 1
        self._write_state(WAITS)

    def _write_state(self, state: int) -> None:
        self._numbers[STATE] = state
        self._numbers[PID] = os.getpid()
        self._numbers[SINCE] = time.monotonic_ns()  # one clock for all processes of a machine
        self._numbers[SEQUENCE] += 1
