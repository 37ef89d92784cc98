"""A list of files as the input: a CSV or Parquet file of which one column names them.

In: the list, and the folder that its relative names start from. Out: `Source`s in the order of the rows, read batch by
batch. The list's other columns travel like those of any table (`intake.table`).
"""

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from dinov2.preprocess.intake.archives import list_archive
from dinov2.preprocess.intake.columns import file_column
from dinov2.preprocess.intake.names import ArchiveKind, Skipped, Why, archive_kind
from dinov2.preprocess.intake.source import Source
from dinov2.preprocess.intake.tabular import column_names, iter_texts


def iter_listed(path: Path, *, root: Path, opens: Callable[[str, ArchiveKind], bool]) -> Iterator[Source | Skipped]:
    """Every file of the list once; one that is not there is a source that cannot be read.

    A listed archive stands for its members where `opens(relative, kind)` says so. Raises ManifestError where the list
    is no table or names no files.
    """
    column = file_column(column_names(path), path=path)
    repeated = _repeated(path, column=column)
    seen: set[int] = set()
    for batch in iter_texts(path, column):
        for cell in batch:
            name = listed_name(cell)
            key = hash(name)
            if not name:
                yield Skipped("", Why.NAMELESS)
            elif key in seen:
                yield Skipped(name, Why.AGAIN)
            else:
                if key in repeated:
                    seen.add(key)
                yield from _look_up(name, root=root, opens=opens)


def listed_name(cell: str | None) -> str:
    """A path as it is written in a table, with forward slashes; empty where the cell is."""
    return (cell or "").strip().replace("\\", "/").removeprefix("./")


def _look_up(name: str, *, root: Path, opens: Callable[[str, ArchiveKind], bool]) -> Iterator[Source | Skipped]:
    path = root / name
    fault = ""
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            fault = "the list names something that is no file. Correct its row."
    except (FileNotFoundError, NotADirectoryError):
        fault = "the listed file is not there. Correct its row, or give the folder that the rows start from as --root."
    except (OSError, ValueError):
        fault = "the listed file cannot be looked at. Correct its row or the permissions of its folder."
    if fault:
        yield Source(relative=name, path=path, size=0, mtime_ns=0, kind="fault", fault=fault)
    elif kind := archive_kind(name):
        if opens(name, kind):
            yield from list_archive(path, relative=name, kind=kind)
    else:
        yield Source(relative=name, path=path, size=state.st_size, mtime_ns=state.st_mtime_ns)


def _repeated(path: Path, *, column: str) -> frozenset[int]:
    """Hashes of names that stand in more than one row: 8 bytes per row while they are looked for."""
    parts = [np.fromiter((hash(listed_name(cell)) for cell in batch), np.int64) for batch in iter_texts(path, column)]
    hashes, counts = np.unique(np.concatenate(parts) if parts else np.empty(0, np.int64), return_counts=True)
    return frozenset(hashes[counts > 1].tolist())
