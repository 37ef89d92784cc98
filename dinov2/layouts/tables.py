"""The tables that a dataset ships: found below its folder, packed or not, and read as Arrow columns.

In: a folder and what is wanted. Out: Arrow tables with ids as text. A table that is not there is an error that says
where the dataset ships it, or a remark where the pictures can be used without it.
"""

import csv
import gzip
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from dinov2.errors import ManifestError


@dataclass(frozen=True, kw_only=True)
class TableFile:
    """One table of a dataset; any of its names will do, and each may end in .gz too."""

    names: tuple[str, ...]
    columns: tuple[str, ...]  # that it must have; none for a plain list of file names
    ships: str  # where the dataset has it
    gives: str  # what is missing without it
    optional: bool = False


@dataclass
class Tables:
    """The tables below a folder: in it, or in a folder directly below."""

    root: Path
    remarks: list[str] = field(default_factory=list)

    def find(self, file: TableFile) -> Path | None:
        """Where a table lies.  Raises ManifestError where it is needed and absent."""
        folders = [self.root, *sorted(path for path in self.root.iterdir() if path.is_dir() and path.name[0] != ".")]
        for name in file.names:
            for folder in folders:
                for path in (folder / name, folder / f"{name}.gz"):
                    if path.is_file():
                        return path
        missing = f"{' or '.join(file.names)} (.gz too) is not below {self.root}. It ships with {file.ships}"
        if not file.optional:
            raise ManifestError(f"{missing}. Put it there, or give the folder that holds it as --root.")
        self.remarks.append(f"{missing}; without it there is no {file.gives}.")
        return None

    def read(
        self, file: TableFile, *, floats: Sequence[str] = (), synonyms: Mapping[str, str] | None = None
    ) -> pa.Table | None:
        """The columns that `file` names, as text or as float32; None where an optional table is absent.

        `synonyms`: other names that releases of the dataset use. Raises ManifestError where a column is missing.
        """
        path = self.find(file)
        return None if path is None else self._read(path, wanted=file.columns, floats=floats, synonyms=synonyms or {})

    def read_wide(self, file: TableFile, *, texts: Sequence[str]) -> pa.Table | None:
        """Every column: those among `texts` as text, the others as float32."""
        path = self.find(file)
        if path is None:
            return None
        names = _header(path)
        names += [name for name in file.columns if name not in names]
        return self._read(path, wanted=names, floats=[name for name in names if name not in texts], synonyms={})

    def lines(self, file: TableFile) -> pa.Array | None:
        """The lines of a plain list, as text."""
        path = self.find(file)
        return None if path is None else pa.array(path.read_text().split(), pa.string())

    def _read(
        self, path: Path, *, wanted: Sequence[str], floats: Sequence[str], synonyms: Mapping[str, str]
    ) -> pa.Table:
        present = _header(path)
        names = {synonyms.get(name, name): name for name in present}
        missing = [name for name in wanted if name not in names]
        if missing:
            raise ManifestError(
                f"{path}: the columns {', '.join(missing)} are missing; present are {', '.join(present)}. "
                "Is it the dataset's own table, unchanged?"
            )
        num_faulty = 0

        def leave_out(_: object) -> str:
            nonlocal num_faulty
            num_faulty += 1
            return "skip"

        options = pa_csv.ConvertOptions(
            include_columns=[names[name] for name in wanted],
            column_types={names[name]: pa.float32() if name in floats else pa.string() for name in wanted},
            strings_can_be_null=True,
        )
        parse = pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=leave_out)
        try:
            table = pa_csv.read_csv(path, parse_options=parse, convert_options=options)
        except (pa.ArrowException, OSError, EOFError) as error:
            raise ManifestError(f"{path}: cannot be read ({_cause(error)}). Download it again.") from None
        if num_faulty:
            self.remarks.append(f"{path}: {num_faulty} rows with too many or too few columns were left out.")
        return table.rename_columns(list(wanted))


def matching(table: pa.Table, *, key: str, keys: pa.ChunkedArray) -> pa.Table:
    """For every key the first row of `table` that has it in the column `key`; a row of nulls where none has."""
    return table.take(pc.index_in(keys, value_set=table.column(key).combine_chunks()))


def _header(path: Path) -> list[str]:
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig", newline="") as stream:
            return next(csv.reader(stream), [])
    except (OSError, EOFError, ValueError, csv.Error) as error:
        raise ManifestError(f"{path}: cannot be read ({_cause(error)}). Download it again.") from None


def _cause(error: BaseException) -> str:
    """Without the cells that Arrow quotes."""
    where = re.search(r"In CSV column #\d+", str(error))
    return where[0] if where else type(error).__name__
