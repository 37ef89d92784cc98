"""What is being made: a hidden folder beside its place, there for as long as its maker lives.

In: the folder where a result will be. Out: an empty folder in it, which is gone at the end. What the end of the process
left undone (`kill -9`, a power cut) is removed by the next that makes something there.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

SUFFIX = ".partial"
LOCK = "dinov2.lock"  # held by the maker; the operating system drops it when the process ends, however it ends


@contextmanager
def making(parent: Path, *, name: str) -> Iterator[Path]:
    """A new folder `PARENT/.NAME.<something>.partial`, removed at the end with all that was not moved out of it.

    Folders of this kind in `parent` that nobody makes any more are removed first; those of others who live stay.

    Raises OSError where `parent` cannot be written.
    """
    remove_leftovers(parent)
    parent.mkdir(parents=True, exist_ok=True)
    while True:  # again only where somebody else swept between two of our lines
        made = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=SUFFIX, dir=parent))
        lock = _locked(made)
        if lock is not None:
            break
    os.register_at_fork(after_in_child=lock.close)  # workers of a killed process live on for seconds
    with lock:
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)


def remove_leftovers(parent: Path) -> None:
    """Removes what killed processes were making in `parent`; where it cannot be told or removed, it stays."""
    for path in parent.glob(f".*{SUFFIX}/{LOCK}"):
        with suppress(OSError), path.open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.parent)


def _locked(made: Path) -> IO[str] | None:
    """The lock of a new folder; None where the folder was taken for a leftover before it was ours."""
    try:
        lock = (made / LOCK).open("a")
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    except OSError:
        return lock  # a file system without locks: then nobody can sweep either
    if not (made / LOCK).exists():
        lock.close()
        return None
    return lock
