"""What this machine is: versions and hardware, for the record beside every measurement.

In: a device. Out: plain facts that go into JSON as they are.
"""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from dinov2.bench.resident import memory_installed, resident_peak

OPENCV = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python")
DRIVER_SECONDS = 10.0  # that nvidia-smi may take to answer


def machine_facts(device: torch.device) -> dict[str, Any]:
    """Versions and hardware, and the moment in UTC. `device` is the name of what is measured, a GPU or a processor."""
    facts: dict[str, Any] = {
        "device": cpu_name(),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "memory_bytes": memory_installed(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "xformers": _version("xformers"),
        "opencv": next((found for name in OPENCV if (found := _version(name))), None),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return facts | (_gpu_facts(device) if device.type == "cuda" else {})


def peak_memory(device: torch.device) -> float:
    """Bytes: the peak of the GPU's allocator, or of this process's resident memory on a CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return float(resident_peak())


def device_of(name: str) -> torch.device:
    """The device that an option names: "cpu", "cuda", or "auto", which is the first GPU where there is one."""
    return torch.device("cuda", 0) if name != "cpu" and torch.cuda.is_available() else torch.device("cpu")


def cpu_name() -> str:
    """The processor as it calls itself."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpu_facts(device: torch.device) -> dict[str, Any]:
    gpu = torch.cuda.get_device_properties(device)
    return {
        "device": gpu.name,
        "gpu_memory_bytes": gpu.total_memory,
        "gpu_capability": f"{gpu.major}.{gpu.minor}",
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "driver": _driver(),
    }


def _driver() -> str | None:
    """The version of the GPU's driver, where nvidia-smi tells it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    words = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(words, check=True, capture_output=True, text=True, timeout=DRIVER_SECONDS).stdout
    except (subprocess.SubprocessError, OSError):
        return None
    return told.strip().splitlines()[0] if told.strip() else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
