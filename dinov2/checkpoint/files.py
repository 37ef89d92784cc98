"""Files and folders that are there after a power cut, or not at all.

In: paths and texts. Out: the same on disk, synchronised.
"""

import os
import shutil
from pathlib import Path

FACTS = "facts.json"  # of a checkpoint; what is in it besides tensors
PARTIAL = (
    ".partial-"  # prefix of whatever is being made or unmade; what a killed run leaves is removed at the next start
)


def write_durably(path: Path, text: str) -> bytes:
    """Writes a text file through to the disk; returns its bytes."""
    data = text.encode()
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    return data


def sync_folder(folder: Path) -> None:
    """A rename is durable once its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def share_files(folder: Path) -> None:
    """Files of a folder become as readable as the folder is; safetensors gives its files to their owner alone."""
    mode = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def clear_folder(folder: Path) -> None:
    """Removes what is in a folder, not the folder."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def remove_folder(folder: Path) -> None:
    """Takes a folder's name away at once and then its contents, so that no half of it is ever met under its name."""
    doomed = folder.with_name(f"{PARTIAL}removed-{folder.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    try:
        folder.rename(doomed)
    except OSError:
        return  # it is gone already, or may not be removed; either is no reason to stop a run
    shutil.rmtree(doomed, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Removes what a killed run left half made."""
    for path in folder.glob(f"{PARTIAL}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
