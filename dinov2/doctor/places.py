"""Where things are written here: disks, shared memory, open files.

In: this machine. Out: findings; too little room is told before it ends a run.
"""

import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dinov2.config.schema import Config
from dinov2.doctor.finding import Finding

TOPIC = "places"
GIB = 2**30
LEAST_DISK = 20 * GIB  # three checkpoints of a ViT-B with its heads, and their exports
LEAST_TEMPORARY = GIB
LEAST_SHARED = GIB
LEAST_FILES = 1024
SHARED = Path("/dev/shm")


def examine(_: Config) -> tuple[Finding, ...]:
    """The folder of now, the temporary one, the cache of weights, shared memory, open files."""
    return (*_disks(), _shared(), _open_files())


def _disks() -> Iterator[Finding]:
    yield _disk("this folder", Path.cwd(), least=LEAST_DISK, why="three checkpoints of a ViT-B take about 15 GB")
    temporary = Path(tempfile.gettempdir())
    yield _disk("temporary files", temporary, least=LEAST_TEMPORARY, why="set TMPDIR to a larger one")
    cache = os.environ.get("HF_HOME")
    place = Path(cache) if cache else Path.home() / ".cache" / "huggingface"
    yield _disk("cache of the hub", place, least=LEAST_TEMPORARY, why="set HF_HOME to a larger one")


def _disk(name: str, place: Path, *, least: int, why: str) -> Finding:
    """Of a folder that need not be there yet: the nearest one above it."""
    there = next(folder for folder in (place, *place.parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    words = f"{place}: {free / GIB:.1f} GiB free"
    if not os.access(there, os.W_OK):
        return Finding(topic=TOPIC, name=name, value=words, verdict="note", why="nothing can be written there")
    if free < least:
        return Finding(topic=TOPIC, name=name, value=words, verdict="note", why=f"little room: {why}")
    return Finding(topic=TOPIC, name=name, value=words)


def _shared() -> Finding:
    """Loader processes hand their batches over through it; a container often has 64 MiB of it."""
    if not SHARED.is_dir():
        return Finding(topic=TOPIC, name="shared memory", value="none", verdict="note", mend="train.num_workers=0")
    free = shutil.disk_usage(SHARED).free
    words = f"{SHARED}: {free / GIB:.2f} GiB free"
    if free < LEAST_SHARED:
        return Finding(
            topic=TOPIC,
            name="shared memory",
            value=words,
            verdict="note",
            why="workers hand batches over through it, and a run that needs more ends with a bus error",
            mend="docker run --shm-size=8g ..., or train.num_workers=0",
        )
    return Finding(topic=TOPIC, name="shared memory", value=words)


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    words = "no limit" if soft == resource.RLIM_INFINITY else f"{soft:,} at once"
    if soft != resource.RLIM_INFINITY and soft < LEAST_FILES:
        why = "many workers open more"
        mend = f"ulimit -n {LEAST_FILES if hard == resource.RLIM_INFINITY else min(LEAST_FILES, hard)}"
        return Finding(topic=TOPIC, name="open files", value=words, verdict="note", why=why, mend=mend)
    return Finding(topic=TOPIC, name="open files", value=words)
