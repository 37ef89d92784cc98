"""What a table knows of the films: patient, view, split, labels, joined to the input files by path.

In: a CSV with a column that names files. Out: a `FilmTable` that gives the row of an input file. A file matches the row
with its relative path, or the row of which one path is the other's ending: `hannover/a.png` in the table and `a.png` in
the input, or the other way round.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from dinov2.errors import ManifestError
from dinov2.manifest import COLUMNS, SYNONYMS

FILE_COLUMNS = ("image", *(word for word, target in SYNONYMS.items() if target == "image"))
TAKEN = (
    "dataset",
    "patient",
    "study",
    "view",
    "split",
    "modality",
)  # a value of the table takes the place of the file's own
OURS = frozenset(COLUMNS) | {"flags", "spacing_mm", "bits"}  # any other such column of the table is renamed


@dataclass(frozen=True)
class FilmTable:
    """Rows by the last part of their file name."""

    path: Path
    rows: Mapping[str, tuple[tuple[str, Mapping[str, Any]], ...]]  # file name -> (path in the table, values)
    columns: tuple[str, ...]  # of the values, without the file column
    num_rows: int

    def find(self, relative: str) -> Mapping[str, Any] | None:
        """The values for an input file.  Raises ManifestError where two rows fit equally."""
        candidates = self.rows.get(PurePosixPath(relative).name, ())
        exact = [values for path, values in candidates if path == relative]
        fitting = exact or [v for p, v in candidates if p.endswith(f"/{relative}") or relative.endswith(f"/{p}")]
        if len(fitting) > 1:
            raise ManifestError(
                f"{self.path}: {len(fitting)} rows fit the input file {relative}. Write the paths relative to --input."
            )
        return fitting[0] if fitting else None


def read_table(path: Path) -> FilmTable:
    """The table of a CSV file; types of the columns as Arrow infers them, patient and study as text.

    Raises ManifestError where it is no CSV, or no column names files.
    """
    names = _header(path)
    standard = {name: SYNONYMS.get(name.lower(), name.lower() if name.lower() in TAKEN else name) for name in names}
    file_column = next((name for name in names if name.lower() in FILE_COLUMNS), None)
    if file_column is None:
        raise ManifestError(
            f"{path}: no column names the files; expected one of {', '.join(FILE_COLUMNS)}. Columns present: "
            f"{', '.join(names)}."
        )
    text = {name: pa.string() for name in names if name == file_column or standard[name] in TAKEN}
    try:
        table = pa_csv.read_csv(
            path, convert_options=pa_csv.ConvertOptions(column_types=text, strings_can_be_null=True)
        )
    except (pa.ArrowInvalid, OSError) as error:
        raise ManifestError(f"{path}: not a readable CSV file ({str(error).splitlines()[0]})") from error
    keys = {name: _column(standard[name]) for name in names if name != file_column}
    rows: dict[str, list[tuple[str, Mapping[str, Any]]]] = defaultdict(list)
    for values in table.to_pylist():
        if named := values[file_column]:
            posix = str(named).replace("\\", "/").removeprefix("./")
            rows[PurePosixPath(posix).name].append((posix, {key: values[name] for name, key in keys.items()}))
    return FilmTable(path, {name: tuple(found) for name, found in rows.items()}, tuple(keys.values()), table.num_rows)


def _header(path: Path) -> list[str]:
    if not path.is_file():
        raise ManifestError(f"{path}: no such table. Give a CSV file as --table.")
    try:
        with pa_csv.open_csv(path) as reader:
            return list(reader.schema.names)
    except (pa.ArrowInvalid, OSError) as error:
        raise ManifestError(f"{path}: not a readable CSV file ({str(error).splitlines()[0]})") from error


def _column(name: str) -> str:
    return f"table_{name}" if name in OURS and name not in TAKEN else name
