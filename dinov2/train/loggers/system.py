"""What a step costs the machine: memory, processors, and how much of the device's arithmetic it uses.

In: the device, what a step computes, the seconds it took. Out: figures for `logs/timing.json`; what cannot be known
here is absent. Of this process and of the data workers it started; of several processes the main one tells its own.
"""

import os
import time
from dataclasses import dataclass
from importlib.util import find_spec

import psutil
import torch

GIB = 2.0**30
LOOK_FOR_WORKERS_SECONDS = 60.0  # going over a machine's processes takes milliseconds


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A step of one process against what its device can do."""

    flops: float  # products of matrices in a step; what is computed twice to save memory counts once
    rate: float  # FLOP/s of large matrix products in the step's number format, as measured on this device


class System:
    """Figures since the last time that they were asked for."""

    def __init__(self, device: torch.device, *, workload: Workload | None) -> None:
        self._device, self._workload = device, workload
        self._process = psutil.Process()
        self._children: list[psutil.Process] = []
        self._looked = float("-inf")
        self._asked, self._cpu_seconds = time.monotonic(), self._spent()
        self._tells_use = device.type == "cuda" and find_spec("pynvml") is not None

    def figures(self, *, seconds: float) -> dict[str, float]:
        """`seconds` that the step took.

        memory_gib: of this process, and what its workers do not share with it. cpu_share: of the cores that it may
        use. gpu_memory_gib: the most that was ever held. gpu_share: of the last moments in which any kernel ran.
        matrix_share: of the device's matrix rate.
        """
        self._look_for_children()
        now, spent = time.monotonic(), self._spent()
        cores = len(os.sched_getaffinity(0))
        figures = {
            "memory_gib": self._memory() / GIB,
            "cpu_share": max(0.0, spent - self._cpu_seconds) / max(now - self._asked, 1e-9) / cores,
        }
        self._asked, self._cpu_seconds = now, spent
        if self._device.type == "cuda":
            figures["gpu_memory_gib"] = torch.cuda.max_memory_reserved(self._device) / GIB
        if self._tells_use:
            figures |= self._use()
        if self._workload is not None:
            figures["matrix_share"] = self._workload.flops / seconds / self._workload.rate
        return figures

    def _look_for_children(self) -> None:
        if time.monotonic() - self._looked > LOOK_FOR_WORKERS_SECONDS:
            before = set(self._children)
            self._children = self._process.children()
            self._looked = time.monotonic()
            # What a process did before it was seen belongs to no interval.
            self._cpu_seconds += sum(_cpu(child) for child in self._children if child not in before)

    def _spent(self) -> float:
        """CPU seconds so far."""
        return _cpu(self._process) + sum(_cpu(child) for child in self._children)

    def _memory(self) -> float:
        """Bytes."""
        total = float(self._process.memory_info().rss)
        for child in self._children:
            try:
                held = child.memory_info()
            except psutil.Error:  # it has ended
                continue
            total += max(0, held.rss - getattr(held, "shared", 0))
        return total

    def _use(self) -> dict[str, float]:
        """Asked of the driver; once it does not answer it is not asked again."""
        try:
            return {"gpu_share": torch.cuda.utilization(self._device) / 100}
        except Exception:  # of pynvml, which is not ours to know
            self._tells_use = False
            return {}


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
