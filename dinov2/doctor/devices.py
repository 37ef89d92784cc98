"""What computes here: cores and memory that this process may use, GPUs that really multiply, and how they talk.

In: this machine. Out: findings. Limits of a container count, for they are what ends a run.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist

from dinov2.bench.machine import cpu_name
from dinov2.bench.resident import memory_available, memory_installed
from dinov2.config.schema import Config
from dinov2.doctor.finding import Finding, first_line

TOPIC = "devices"
GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")
SMI_SECONDS = 20.0  # that nvidia-smi may take on a machine with many GPUs that sleep
TAKEN_SHARE = 0.1  # of a GPU's memory: above it somebody else is at work there
LITTLE_MEMORY = 4 * GIB


def examine(_: Config) -> tuple[Finding, ...]:
    """Processor, memory, GPUs, their driver and the libraries that exchange gradients."""
    return (_processor(), _memory(), *_gpus(), _exchange())


def _processor() -> Finding:
    usable, installed = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    words = f"{cpu_name()}, {usable} of {installed} cores may be used, {torch.get_num_threads()} threads in torch"
    quota = core_quota()
    if quota is not None and quota < usable:
        return Finding(
            topic=TOPIC,
            name="processor",
            value=words,
            verdict="note",
            why=f"this container is given the time of {quota:.1f} cores, and as many workers are enough",
            mend=f"train.num_workers={max(1, int(quota))}",
        )
    return Finding(topic=TOPIC, name="processor", value=words)


def core_quota(folder: Path = CGROUP) -> float | None:
    """Cores' worth of time that this container gets; None without a limit (cgroup v2, cpu.max)."""
    words = _words(folder / "cpu.max")
    return int(words[0]) / int(words[1]) if len(words) == 2 and words[0].isdigit() else None


def memory_limit(folder: Path = CGROUP) -> int | None:
    """Bytes that this container may hold; None without a limit (cgroup v2, memory.max)."""
    words = _words(folder / "memory.max")
    return int(words[0]) if words and words[0].isdigit() else None


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def _memory() -> Finding:
    installed, available, limit = memory_installed(), memory_available(), memory_limit()
    words = f"{installed / GIB:.1f} GiB, {available / GIB:.1f} GiB free"
    if limit is not None and limit < installed:
        words += f"; {limit / GIB:.1f} GiB for this container"
    if min(available, limit or available) < LITTLE_MEMORY:
        why = "enough for small networks on a CPU; a ViT-B needs about 4 GB before pictures and activations"
        return Finding(topic=TOPIC, name="memory", value=words, verdict="note", why=why)
    return Finding(topic=TOPIC, name="memory", value=words)


def _gpus() -> Iterator[Finding]:
    seen = _smi("name,driver_version")
    if torch.cuda.is_available():
        driver = f", driver {seen[0][1]}" if seen and len(seen[0]) > 1 else ""
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        yield Finding(topic=TOPIC, name="CUDA", value=f"{torch.version.cuda}, cuDNN {cudnn}{driver}")
        yield from (_gpu(index) for index in range(torch.cuda.device_count()))
    elif seen:
        yield _unused(seen)
    else:
        yield Finding(
            topic=TOPIC,
            name="GPU",
            value="none",
            verdict="note",
            why="training runs on the CPU: right for cpu_smoke and phantom_probe, weeks for anything else",
        )


def _gpu(index: int) -> Finding:
    """Named, its memory counted, and asked for a product: a torch without kernels for it fails only then."""
    name, about = f"GPU {index}", torch.cuda.get_device_properties(index)
    words = f"{about.name}, compute capability {about.major}.{about.minor}"
    try:
        free, total = torch.cuda.mem_get_info(index)
        ones = torch.ones(64, 64, device=torch.device("cuda", index), dtype=torch.float16)
        works = float((ones @ ones)[0, 0]) == len(ones)
    except RuntimeError as error:
        return _cannot_multiply(name, words=words, why=first_line(error))
    words += f", {free / GIB:.1f} of {total / GIB:.1f} GiB free"
    if not works:
        return _cannot_multiply(name, words=words, why="a product of ones came out wrong")
    if total - free > TAKEN_SHARE * total:
        why = "its memory is partly taken, by another program or another run"
        return Finding(topic=TOPIC, name=name, value=words, verdict="note", why=why, mend="nvidia-smi")
    return Finding(topic=TOPIC, name=name, value=words)


def _cannot_multiply(name: str, *, words: str, why: str) -> Finding:
    return Finding(
        topic=TOPIC,
        name=name,
        value=words,
        verdict="broken",
        why=f"cannot compute: {why}",
        mend="install a torch whose CUDA knows this GPU (https://pytorch.org/get-started/locally), or hide it with "
        "CUDA_VISIBLE_DEVICES=",
    )


def _unused(seen: list[list[str]]) -> Finding:
    """The machine has GPUs and torch sees none."""
    words = f"{len(seen)} x {seen[0][0]}, and torch sees none"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        why = f"CUDA_VISIBLE_DEVICES={hidden!r} hides them"
        return Finding(topic=TOPIC, name="GPU", value=words, verdict="note", why=why, mend="unset CUDA_VISIBLE_DEVICES")
    if torch.version.cuda is None:
        why, mend = f"torch {torch.__version__} is built without CUDA", "pip install torch --force-reinstall, as "
        mend += "https://pytorch.org/get-started/locally says for this CUDA"
    else:
        driver = seen[0][1] if len(seen[0]) > 1 else "of this machine"
        why = f"torch is built for CUDA {torch.version.cuda}; the driver {driver} may be too old for it"
        mend = "a newer driver, or a torch for an older CUDA (https://pytorch.org/get-started/previous-versions)"
    return Finding(topic=TOPIC, name="GPU", value=words, verdict="broken", why=why, mend=mend)


def _smi(query: str) -> list[list[str]]:
    """A row per GPU as nvidia-smi tells it; empty where there is none of either."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    words = [program, f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        told = subprocess.run(words, check=True, capture_output=True, text=True, timeout=SMI_SECONDS).stdout
    except (subprocess.SubprocessError, OSError):
        return []
    return [[part.strip() for part in line.split(",")] for line in told.splitlines() if line.strip()]


def _exchange() -> Finding:
    """What several processes of a run would speak through."""
    if not dist.is_available():
        why = "several processes cannot train together; one can"
        return Finding(topic=TOPIC, name="exchange", value="none", verdict="note", why=why)
    names = ["gloo"] if dist.is_gloo_available() else []
    if dist.is_nccl_available() and torch.cuda.is_available():
        version = torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
        names.append("NCCL " + ".".join(map(str, version)))
    elif torch.cuda.is_available():
        why = "several GPUs cannot train together without NCCL; one can"
        return Finding(topic=TOPIC, name="exchange", value=", ".join(names), verdict="note", why=why)
    return Finding(topic=TOPIC, name="exchange", value=", ".join(names))
