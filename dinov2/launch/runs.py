"""What became of the runs of a folder.

In: folders of runs, or runs. Out: a `RunReport` each: state, step, speed, newest numbers, settings, last words. Nothing
is locked or written, so it can be asked while the runs work; only the ends of their files are read.
"""

import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml  # type: ignore[import-untyped]

from dinov2.config.lengths import lengths
from dinov2.config.schema import Optim, Teacher, Train
from dinov2.errors import LaunchError
from dinov2.launch.last_words import last_words
from dinov2.launch.queue import Held, look
from dinov2.launch.records import newest_jobs
from dinov2.launch.sweep import FILE, read_sweep
from dinov2.launch.tails import last_numbers

State = Literal["finished", "running", "waiting", "stopped", "failed"]
DEEPEST = 3  # folders below the one that was named
INNER = ("logs", "checkpoints", "exports", "superseded")
FRESH_SECONDS = 600.0
LOADER = getattr(
    yaml, "CSafeLoader", yaml.SafeLoader
)  # the same language; without the C library it takes ten times as long


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """One run. `words` is the message that a failed run ended with, or what a waiting one waits for."""

    path: Path
    state: State
    words: str
    step: int
    total_steps: int | None
    numbers: Mapping[str, float]  # the newest of training_metrics.json
    timing: Mapping[str, float]  # the newest of logs/timing.json
    settings: Mapping[str, Any]  # dotted keys of config.yaml, or those of the sweep where the run has not begun

    @property
    def pictures_per_second(self) -> float | None:
        """Of the last logged step."""
        return self.timing.get("pictures_per_second")


def read_runs(folders: Sequence[Path]) -> list[RunReport]:
    """A report of every run in the folders, or of those that they are.  Raises LaunchError where there is none."""
    found: dict[Path, dict[str, Any]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise LaunchError(f"{folder}: no such folder. Give a run, or a folder of runs.")
        found |= dict(_find(folder, depth=0))
    if not found:
        raise LaunchError(
            f"{', '.join(map(str, folders))}: no run in it. Give the --output-dir of a training or a sweep."
        )
    jobs = newest_jobs(list(found))
    ids = sorted({job.id.partition("_")[0] for job in jobs.values() if job.cluster == "slurm"})
    held = (look(",".join(ids)) or {}) if ids else {}
    locked = _locked_inodes()
    return [
        _report(path, planned=planned, held=held.get(jobs[path].id) if path in jobs else None, locked=locked)
        for path, planned in found.items()
    ]


def is_running(path: Path) -> bool:
    """Whether a process writes to this run's folder, as far as this machine can see."""
    return _holds_lock(path, locked=_locked_inodes())


def newest_step(path: Path) -> int | None:
    """The step of the newest checkpoint; None without any."""
    folder = path / "checkpoints"
    steps = [int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal()] if folder.is_dir() else []
    return max(steps, default=None)


def _find(folder: Path, *, depth: int) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Runs at or below a folder, each with the settings that a sweep planned for it."""
    if _is_run(folder):
        yield folder, {}
        return
    planned = {folder / entry["name"]: entry["settings"] for entry in read_sweep(folder)}
    yield from planned.items()
    if depth == DEEPEST:
        return
    for child in sorted(folder.iterdir()):
        if child.is_dir() and child not in planned and not child.name.startswith(".") and child.name not in INNER:
            yield from _find(child, depth=depth + 1)


def _is_run(folder: Path) -> bool:
    if (folder / FILE).is_file() or (folder / "preprocess.json").is_file():  # a sweep, or a conversion, locked too
        return False
    return (
        (folder / "training_metrics.json").is_file() or (folder / ".lock").is_file() or (folder / "logs/jobs").is_dir()
    )


def _report(path: Path, *, planned: dict[str, Any], held: Held | None, locked: frozenset[int]) -> RunReport:
    config = _config(path)
    numbers, timing = (last_numbers(path / name) for name in ("training_metrics.json", "logs/timing.json"))
    saved, total = newest_step(path), _total_steps(config)
    state, words = _state(path, held=held, locked=locked, finished=total is not None and saved == total)
    return RunReport(
        path=path,
        state=state,
        words=words,
        step=int(max(numbers.get("step", 0), saved or 0)),
        total_steps=total,
        numbers={name: value for name, value in numbers.items() if name != "step"},
        timing={name: value for name, value in timing.items() if name != "step"},
        settings=dict(_flat(config)) or planned,
    )


def _state(path: Path, *, held: Held | None, locked: frozenset[int], finished: bool) -> tuple[State, str]:
    if _holds_lock(path, locked=locked):
        return "running", ""
    if finished:
        return "finished", ""
    if held is not None:
        return ("waiting", held.reason) if held.state in ("PENDING", "REQUEUED") else ("running", "")
    if not path.is_dir():
        return "waiting", "not submitted, or not begun"
    failed, words = last_words(path)
    return ("failed" if failed else "stopped"), words


def _holds_lock(path: Path, *, locked: frozenset[int]) -> bool:
    """By the kernel's list where the lock's text names this machine, else by how fresh the run's files are.

    Asking for the lock itself would refuse a run that starts in the same moment.
    """
    lock = path / ".lock"
    try:
        text, inode = lock.read_text(encoding="utf-8", errors="replace"), lock.stat().st_ino
    except OSError:
        return False
    if f" on {socket.gethostname()}," in text:
        return inode in locked
    return bool(text.strip()) and _is_fresh(path)


def _is_fresh(path: Path) -> bool:
    seconds = last_numbers(path / "logs" / "timing.json").get("seconds_per_step", 0.0)
    times = [file.stat().st_mtime for file in (path / "logs/timing.json", path / "logs/train.log") if file.is_file()]
    ended, _ = last_words(path)
    return not ended and bool(times) and time.time() - max(times) < max(FRESH_SECONDS, 20 * seconds)


def _locked_inodes() -> frozenset[int]:
    """Inodes that a process of this machine holds a lock on."""
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return frozenset()
    fields = (line.split() for line in lines if " FLOCK " in line and "->" not in line)
    return frozenset(int(one[5].rpartition(":")[2]) for one in fields if len(one) > 5)


def _config(path: Path) -> dict[str, Any]:
    try:
        value = yaml.load((path / "config.yaml").read_text(encoding="utf-8"), Loader=LOADER)
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return {}
    return value if isinstance(value, dict) else {}


def _total_steps(config: Mapping[str, Any]) -> int | None:
    try:
        optim, teacher = Optim(**config["optim"]), Teacher(**config["teacher"])
        return lengths(optim, teacher, train=Train(**config["train"])).total
    except (KeyError, TypeError):  # of another version, or none yet
        return None


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
