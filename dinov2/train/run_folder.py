"""The folder of one run: who may write to it and where each file lies.

In: `--output-dir`. Out: a `RunFolder`, locked against a second run for as long as it is open.
Files: config.yaml, training_metrics.json, checkpoints/<step>/, exports/<step>/, looks/, logs/timing.json,
logs/train.log, and nonfinite/<step>/ where a run stopped over a loss that is not finite.
"""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dinov2.errors import LaunchError

OWN_FILES = ("config.yaml", "training_metrics.json", "checkpoints", "exports", "looks", "logs", "nonfinite")


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run."""

    path: Path

    @property
    def config_file(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def metrics_file(self) -> Path:
        """One JSON object per logged step; the same for an interrupted and an uninterrupted run."""
        return self.path / "training_metrics.json"

    @property
    def timing_file(self) -> Path:
        """One JSON object per logged step: seconds, pictures per second, wait for data."""
        return self.path / "logs" / "timing.json"

    @property
    def log_file(self) -> Path:
        """Messages of the main process."""
        return self.path / "logs" / "train.log"

    @property
    def checkpoints(self) -> Path:
        """A folder per checkpoint, named by its step."""
        return self.path / "checkpoints"

    @property
    def exports(self) -> Path:
        """A folder per exported teacher, named by its step."""
        return self.path / "exports"

    @property
    def nonfinite(self) -> Path:
        """A folder per run of steps that could not be made, named by the last of them."""
        return self.path / "nonfinite"

    def set_aside(self) -> Path | None:
        """Moves what an earlier run wrote into `superseded/<n>`, so that a new run starts empty and nothing is lost."""
        present = [self.path / name for name in OWN_FILES if (self.path / name).exists()]
        if not present or (present == [self.log_file.parent] and not any(self.log_file.parent.iterdir())):
            return None
        taken = self.path / "superseded"
        target = taken / str(1 + sum(1 for _ in taken.glob("*")))
        target.mkdir(parents=True)
        for file in present:
            file.rename(target / file.name)
        self.log_file.parent.mkdir(exist_ok=True)
        return target


@contextmanager
def open_run_folder(path: Path, *, is_main: bool) -> Iterator[RunFolder]:
    """The folder, made if need be; the main process holds its lock.

    The operating system drops the lock when the process ends, however it ends. Raises LaunchError where another run
    holds it or the folder cannot be written.
    """
    folder = RunFolder(path)
    if not is_main:
        yield folder
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "logs").mkdir(exist_ok=True)
        lock = (path / ".lock").open("a+")
    except OSError as error:
        raise LaunchError(
            f"{path}: cannot write the run folder ({error.strerror}). Choose another --output-dir."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            raise LaunchError(
                f"{path}: another run is writing to this folder ({lock.read().strip() or 'unknown process'}). "
                "Wait for it, stop it, or choose another --output-dir."
            ) from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        lock.flush()
        os.register_at_fork(after_in_child=lock.close)  # a killed run's data workers live on for seconds
        yield folder
