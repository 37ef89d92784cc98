"""What this machine can do at most: matrix-product rate, and what it is.

In: a device and a number format. Out: rates in FLOP/s and plain facts.
"""

import os
import platform
import time
from typing import Any

import torch

from dinov2.bench.memory import resident_peak

MATRIX_SIDE = {"cpu": 2048, "cuda": 8192}


def matrix_rate(*, device: torch.device, dtype: torch.dtype, seconds: float = 2.0) -> float:
    """FLOP/s of large square matrix products, the best of several over about `seconds`."""
    side = MATRIX_SIDE[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best, spent = 0.0, 0.0
    while spent < seconds:
        took = _seconds(lambda: a @ b, device=device)
        best, spent = max(best, 2 * side**3 / took), spent + took
    return best


def machine_facts(device: torch.device) -> dict[str, Any]:
    """Versions and hardware, for the record beside a measurement."""
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else torch.cpu.get_capabilities().get("cpu_name", "")
    )
    return {
        "device": str(name) or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def peak_memory(device: torch.device) -> float:
    """Bytes: the peak of the GPU's allocator, or of this process's resident memory on a CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return float(resident_peak())


def _seconds(work: Any, *, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
