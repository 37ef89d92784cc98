"""What a table knows of the films: patient, view, split, labels, joined to the input files by path.

In: a CSV or Parquet file with a column that names files (a list that is the input is such a table too). Out: a
`FilmTable` that gives the rows of input files. A file matches the row with its relative path, or the row of which one
path is the other's ending: `hannover/a.png` in the table and `a.png` in the input, or the other way round.

The table stays an Arrow table; an index costs 16 bytes per row, and there is one for whole paths and one for each depth
of folders that is asked for.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dinov2.errors import ManifestError
from dinov2.preprocess.intake.columns import OURS, TAKEN, file_column, is_personal, travel_names
from dinov2.preprocess.intake.lists import listed_name
from dinov2.preprocess.intake.tabular import BATCH_ROWS, column_names, read_columns

__all__ = ["OURS", "TAKEN", "FilmTable", "read_table"]
NO_ROW = -1


@dataclass(frozen=True)
class _Index:
    """Rows by the hash of a text."""

    hashes: NDArray[np.int64]  # ascending
    rows: NDArray[np.int64]

    def look_up(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each text the first of its rows (NO_ROW where there is none) and how many there are."""
        wanted = np.fromiter((hash(text) for text in texts), np.int64, len(texts))
        first = np.searchsorted(self.hashes, wanted, side="left")
        counts = np.searchsorted(self.hashes, wanted, side="right") - first
        padded = np.append(self.rows, NO_ROW)
        return np.where(counts > 0, padded[first], NO_ROW), counts


@dataclass(frozen=True)
class FilmTable:
    """The columns that travel, and indexes of the paths, which do not."""

    path: Path
    num_rows: int
    columns_kept: tuple[str, ...]  # under the names that they have in the manifest
    columns_left_out: tuple[str, ...]  # under the table's own names, because they look like names, ids or dates
    names: tuple[str, ...]  # of all its columns, as the table has them
    _values: pa.Table = field(repr=False)
    _paths: pa.ChunkedArray = field(repr=False)  # large_string
    _depths: tuple[int, ...] = field(repr=False)  # numbers of parts that its paths have
    _indexes: dict[int, _Index] = field(repr=False, default_factory=dict)  # by depth; 0: whole paths

    @property
    def types(self) -> Mapping[str, pa.DataType]:
        """Of the columns that every result of `find` holds."""
        return {field.name: field.type for field in self._values.schema}

    def find(self, relative: str, *, shown: Callable[[str], str] | None = None) -> Mapping[str, Any] | None:
        """The values for one input file; see `find_many`, which is far faster for many."""
        return self.find_many([relative], shown=shown)[0]

    def find_many(
        self, relatives: Sequence[str], *, shown: Callable[[str], str] | None = None
    ) -> list[Mapping[str, Any] | None]:
        """The values for each input file, None where the table has none.  Raises as `rows_of`; ask for thousands."""
        rows = self.rows_of(relatives, shown=shown)
        found = iter(self._take(rows[rows != NO_ROW]))
        return [None if row == NO_ROW else next(found) for row in rows]

    def rows_of(self, relatives: Sequence[str], *, shown: Callable[[str], str] | None = None) -> NDArray[np.int64]:
        """The table's row for each input file, int64 [N], -1 where there is none.

        Raises ManifestError where two rows fit a file equally; its message names the file only as `shown` gives it.
        """
        rows, counts = self._index(0).look_up(relatives)
        for place in np.flatnonzero(counts > 1).tolist():
            counts[place] -= self._num_repeats(relatives[place])
        by_depth: dict[int, list[int]] = defaultdict(list)
        for place in np.flatnonzero(counts == 0).tolist():
            by_depth[relatives[place].count("/") + 1].append(place)
        for depth, places in by_depth.items():
            rows[places], counts[places] = self._by_ending([relatives[place] for place in places], depth=depth)
        if (counts > 1).any():
            place = int(np.flatnonzero(counts > 1)[0])
            name = f" {shown(relatives[place])}" if shown else ""
            raise ManifestError(
                f"{self.path}: {counts[place]} rows fit the input file{name}. Write the paths relative to --input, "
                "each once."
            )
        return self._verified(relatives, rows)

    def _by_ending(self, relatives: Sequence[str], *, depth: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows whose path ends with the file's, and rows with whose path the file's ends."""
        rows, counts = self._index(depth).look_up(relatives)
        for length in (length for length in self._depths if length < depth):
            others, more = self._index(0).look_up([_ending(relative, length) for relative in relatives])
            rows, counts = np.where(counts > 0, rows, others), counts + more
        return rows, counts

    def _num_repeats(self, path: str) -> int:
        """Rows of a path beyond its first that say nothing else than that one."""
        index = self._index(0)
        rows = index.rows[np.searchsorted(index.hashes, hash(path)) :][: self._index(0).look_up([path])[1][0]]
        first, *others = self._take(rows)
        return sum(other == first for other in others)

    def _take(self, rows: NDArray[np.int64]) -> list[dict[str, Any]]:
        if not self._values.column_names:  # a table without columns has no rows in Arrow
            return [{} for _ in rows]
        found: list[dict[str, Any]] = self._values.take(pa.array(rows)).to_pylist()
        return found

    def _index(self, depth: int) -> _Index:
        """Of whole paths, or of the last `depth` parts of those that have more."""
        if depth not in self._indexes:
            hashes = np.empty(len(self._paths), np.int64)
            usable = np.zeros(len(self._paths), bool)
            start = 0
            for batch in self._paths.chunks:
                for offset in range(0, len(batch), BATCH_ROWS):
                    texts = batch.slice(offset, BATCH_ROWS).to_pylist()
                    stop = start + len(texts)
                    if depth:
                        usable[start:stop] = [text.count("/") >= depth for text in texts]
                        texts = [_ending(text, depth) for text in texts]
                    else:
                        usable[start:stop] = [bool(text) for text in texts]
                    hashes[start:stop] = np.fromiter(map(hash, texts), np.int64, len(texts))
                    start = stop
            rows = np.flatnonzero(usable)
            order = np.argsort(hashes[rows], kind="stable")
            self._indexes[depth] = _Index(hashes[rows[order]], rows[order])
        return self._indexes[depth]

    def _verified(self, relatives: Sequence[str], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Without rows that only share a hash: a film must never get another's patient."""
        places = np.flatnonzero(rows != NO_ROW)
        paths = self._paths.take(pa.array(rows[places])).to_pylist()
        for place, path in zip(places.tolist(), paths, strict=True):
            relative = relatives[place]
            if not (path == relative or path.endswith(f"/{relative}") or relative.endswith(f"/{path}")):
                rows[place] = NO_ROW
        return rows


def read_table(path: Path, *, keep_columns: Sequence[str] = ()) -> FilmTable:
    """The table of a CSV or Parquet file; types of the columns as Arrow infers them, those of `TAKEN` as text.

    A column that looks as if it named a person, a file or a day is left out unless `keep_columns` has its name; one
    without any value is left out too.
    Raises ManifestError where the file is no table, or no column names files.
    """
    names = column_names(path)
    files = file_column(names, path=path)
    travel = travel_names(name for name in names if name != files)
    wanted = {name.lower() for name in keep_columns}
    taken = {name for name, target in travel.items() if target in TAKEN}
    texts = frozenset({files, *taken, *(name for name in travel if name.lower() in wanted)})
    values = read_columns(path, texts=texts)
    named = [pa.array(map(listed_name, batch.to_pylist()), pa.large_string()) for batch in values.column(files).chunks]
    paths = pa.chunked_array(named, type=pa.large_string())
    values = values.drop_columns([files, *(name for name in travel if _is_empty(values.column(name)))])
    free = [name for name in values.column_names if name not in taken and name.lower() not in wanted]
    left_out = [name for name in free if is_personal(name, values.column(name))]
    values = values.drop_columns(left_out)
    return FilmTable(
        path=path,
        num_rows=len(paths),
        columns_kept=tuple(travel[name] for name in values.column_names),
        columns_left_out=tuple(left_out),
        names=tuple(names),
        _values=values.rename_columns([travel[name] for name in values.column_names]),
        _paths=paths,
        _depths=tuple(sorted(depth + 1 for depth in pc.unique(pc.count_substring(paths, "/")).to_pylist())),
    )


def _is_empty(column: pa.ChunkedArray) -> bool:
    return bool(len(column) and column.null_count == len(column))


def _ending(path: str, length: int) -> str:
    """The last `length` parts of a path; all of it where it has no more."""
    place = len(path)
    for _ in range(length):
        place = path.rfind("/", 0, place)
        if place < 0:
            return path
    return path[place + 1 :]
