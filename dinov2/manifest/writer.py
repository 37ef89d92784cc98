"""Manifests written as their rows come, so that memory does not grow with the archive.

In: rows (dictionaries) or Arrow tables, in order. Out: a Parquet or CSV file that appears whole or not at all. The
bytes depend on the rows and their order alone, never on how they were handed over.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from dinov2.errors import ManifestError
from dinov2.manifest.columns import COLUMNS

ROWS_PER_GROUP = 65_536  # of Parquet; about 30 MB in memory
ROWS_AS_PYTHON = 4096  # rows that wait as Python objects


class TableWriter:
    """A table of a given schema, written group by group.  A context manager: an error inside leaves no file.

    `path` ends in .csv for CSV; anything else is Parquet. The file is written under a partial name beside `path`.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.schema = path, schema
        self.num_rows = 0
        self._partial = path.with_name(f".{path.name}.partial")
        self._waiting: list[pa.Table] = []
        self._num_waiting = 0
        is_csv = path.suffix.lower() == ".csv"
        try:
            self._file = pa_csv.CSVWriter(self._partial, schema) if is_csv else pq.ParquetWriter(self._partial, schema)
        except BaseException as error:
            self._partial.unlink(missing_ok=True)
            raise _understood(error, path=path) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def add_table(self, table: pa.Table) -> None:
        """Rows in Arrow form, with the columns of the schema in its order and types.  Raises ManifestError, OSError."""
        self._waiting.append(table)
        self._num_waiting += table.num_rows
        if self._num_waiting < ROWS_PER_GROUP:
            return
        rows = pa.concat_tables(self._waiting)
        whole = rows.num_rows - rows.num_rows % ROWS_PER_GROUP
        for start in range(0, whole, ROWS_PER_GROUP):
            self._write(rows.slice(start, ROWS_PER_GROUP))
        self._waiting, self._num_waiting = [rows.slice(whole)], rows.num_rows - whole

    def close(self) -> None:
        """Write what waits, and give the file its name.  Raises ManifestError, OSError; then there is no file."""
        try:
            rows = pa.concat_tables(self._waiting) if self._waiting else self.schema.empty_table()
            if rows.num_rows:
                self._write(rows)
            self._file.close()
            self._partial.replace(self.path)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Leave no file, and the one that was there as it was."""
        try:
            self._file.close()
        except (OSError, pa.ArrowException):
            pass  # a disk that took no rows takes no footer either
        finally:
            self._partial.unlink(missing_ok=True)

    def _write(self, rows: pa.Table) -> None:
        try:
            self._file.write(rows.combine_chunks())
        except pa.ArrowException as error:
            raise _understood(error, path=self.path) from error
        self.num_rows += rows.num_rows


class ManifestWriter(TableWriter):
    """A manifest written row by row: the standard columns, then `extra` columns with their types, in this order."""

    def __init__(self, path: Path, extra: Mapping[str, pa.DataType] | None = None) -> None:
        others = {name: kind for name, kind in (extra or {}).items() if name not in COLUMNS}
        super().__init__(path, pa.schema({**COLUMNS, **others}))
        self._columns: dict[str, list[Any]] = {name: [] for name in self.schema.names}
        self._num_python = 0

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Rows in order; a column that a row lacks is null there.

        Raises ManifestError where a row holds a column that was not announced or a value of another type (then without
        the value, which may name a person); OSError where the disk takes nothing more.
        """
        for row in rows:
            known = 0
            for name, values in self._columns.items():
                known += name in row
                values.append(row.get(name))
            self._num_python += 1
            if known < len(row):
                unknown = ", ".join(sorted(set(row) - self._columns.keys()))
                raise ManifestError(f"{self.path}: a row has the columns {unknown}. Announce them as extra columns.")
            if self._num_python == ROWS_AS_PYTHON:
                self._settle()

    def add_table(self, table: pa.Table) -> None:
        """Rows in Arrow form, after all that was added before; columns that the table lacks are null."""
        self._settle()
        columns = [
            table.column(field.name).cast(field.type)
            if field.name in table.column_names
            else pa.nulls(table.num_rows, field.type)
            for field in self.schema
        ]
        super().add_table(pa.table(columns, schema=self.schema))

    def close(self) -> None:
        """Write what waits, and give the file its name.  Raises ManifestError, OSError; then there is no file."""
        try:
            self._settle()
        except BaseException:
            self.discard()
            raise
        super().close()

    def _settle(self) -> None:
        """Turn the waiting Python rows into Arrow."""
        if not self._num_python:
            return
        arrays = []
        for field in self.schema:
            try:
                arrays.append(pa.array(self._columns[field.name], type=field.type))
            except (pa.ArrowException, TypeError):
                raise ManifestError(
                    f"{self.path}: column '{field.name}' holds a value that is no {field.type}. Announce the column "
                    "with another type, or convert its values."
                ) from None  # Arrow's message repeats the value
            self._columns[field.name] = []
        self._num_python = 0
        super().add_table(pa.table(arrays, schema=self.schema))


def _understood(error: BaseException, *, path: Path) -> BaseException:
    """What Arrow refuses because of the table, as an error of ours; everything else as it is."""
    if isinstance(error, pa.ArrowException) and not isinstance(error, OSError):
        return ManifestError(f"{path}: a column cannot be written to this kind of file ({error}). Use .parquet.")
    return error
