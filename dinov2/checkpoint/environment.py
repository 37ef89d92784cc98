"""With what a checkpoint was written: versions, code, machine, job.

In: nothing but the process. Out: plain values for `facts.json`. Whatever cannot be found out is left out; nothing here
ever fails a run.
"""

import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from dinov2 import __version__

PACKAGE = Path(__file__).resolve().parent.parent
GIT_SECONDS = 10
SLURM_VARIABLES = {
    "job": "SLURM_JOB_ID",
    "array_job": "SLURM_ARRAY_JOB_ID",
    "array_task": "SLURM_ARRAY_TASK_ID",
    "restarts": "SLURM_RESTART_COUNT",
    "nodes": "SLURM_JOB_NUM_NODES",
}


def environment() -> dict[str, Any]:
    """What somebody needs who wants to run this again, or to know why it ran differently."""
    slurm = {name: os.environ[key] for name, key in SLURM_VARIABLES.items() if os.environ.get(key)}
    if slurm:
        slurm.setdefault("restarts", "0")
    return {
        "dinov2": __version__,
        **({"git": code} if (code := _code()) else {}),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        **_accelerator(),
        "dependencies": dict(_dependencies()),
        "processes": dist.get_world_size() if dist.is_initialized() else 1,
        **({"slurm": slurm} if slurm else {}),
        "command": shlex.join(sys.orig_argv),
    }


@cache
def _code() -> dict[str, Any] | None:
    """The commit and whether the package's files differ from it, where it runs from a checkout of its own."""
    if _git("rev-parse", "--show-toplevel") != str(PACKAGE.parent):
        return None  # installed, perhaps inside somebody else's repository
    changed = _git("status", "--porcelain", "--", ".")
    return {"commit": _git("rev-parse", "HEAD"), "changed": None if changed is None else bool(changed)}


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(PACKAGE), *words], capture_output=True, text=True, timeout=GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _accelerator() -> dict[str, Any]:
    """GPUs by name and number, with CUDA's and NCCL's versions; nothing where this process uses none."""
    if not torch.cuda.is_available():
        return {}
    versions: dict[str, Any] = {"cuda": torch.version.cuda}
    if dist.is_nccl_available():
        nccl = torch.cuda.nccl.version()  # type: ignore[no-untyped-call]
        versions["nccl"] = ".".join(map(str, nccl)) if isinstance(nccl, tuple) else str(nccl)
    # To ask for names would start CUDA in a process that does without.
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        versions["gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return versions


@cache
def _dependencies() -> tuple[tuple[str, str], ...]:
    """Versions of what the package asks for, as far as it is installed; what only its tests need is left out."""
    names = sorted({re.split(r"[^A-Za-z0-9._-]", one, maxsplit=1)[0] for one in _requirements()})
    found = []
    for name in names:
        try:
            found.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return tuple(found)


def _requirements() -> list[str]:
    project = PACKAGE.parent / "pyproject.toml"
    try:
        if project.is_file():
            table = tomllib.loads(project.read_text())["project"]
            optional = table.get("optional-dependencies", {})
            return [*table["dependencies"], *(one for extra in optional if extra != "test" for one in optional[extra])]
        given = importlib.metadata.requires(PACKAGE.name) or []
    except (OSError, KeyError, tomllib.TOMLDecodeError, importlib.metadata.PackageNotFoundError):
        return []
    return [one for one in given if not re.search(r"extra\s*==\s*['\"]test['\"]", one)]
