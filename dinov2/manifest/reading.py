"""Manifests from files and folders.

In: a Parquet or CSV file, a folder of pictures, or a list of names. Out: a `Manifest` whose columns have their standard
names and types; or a set of names.
"""

import csv
import os
from collections.abc import Collection, Generator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from dinov2.errors import ManifestError
from dinov2.manifest.columns import COLUMNS, KEPT_AS_TEXT, PLACES, SYNONYMS, standard_name, standard_names
from dinov2.manifest.table import Manifest, from_rows

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff"})
ROWS_AT_ONCE = 65_536


def read(path: Path, *, columns: Collection[str] | None = None) -> Manifest:
    """A manifest from Parquet or CSV.  Relative pictures are looked for beside the file.

    `columns`: only these, by their standard names, are read from a Parquet file; standard columns that are left out are
    null. Raises ManifestError where the file is absent, is no table, has no column that names the picture, or has no
    row.
    """
    tables = list(read_parts(path, columns=columns))
    table = pa.concat_tables(tables) if tables else None
    if table is None or table.num_rows == 0:
        raise ManifestError(f"{path}: the manifest has no row.")
    return Manifest(table, path.parent)


def read_parts(path: Path, *, columns: Collection[str] | None = None) -> Generator[pa.Table, None, None]:
    """The same, part by part, so that no more than a part of a Parquet file is in memory; CSV comes as one part."""
    if not path.is_file():
        raise ManifestError(
            f"{path}: no such manifest. Give a .parquet or .csv file, as `dinov2 preprocess` writes it."
        )
    num_rows, num_empty = 0, 0
    for part in _parts(path, columns=columns):
        table = _standard(part, path=path)
        image = table.column("image")
        num_rows += table.num_rows
        num_empty += pc.sum(pc.or_kleene(pc.is_null(image), pc.equal(image, ""))).as_py() or 0
        yield table
    if num_empty:
        raise ManifestError(
            f"{path}: {num_empty} of {num_rows} rows name no picture (column 'image' is empty). Remove or fill them."
        )


def from_folder(folder: Path) -> Manifest:
    """A manifest of every PNG, JPEG and TIFF below `folder`, in the order of their paths; only the path is known."""
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder.")
    relative: list[str] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        pictures = (name for name in sorted(names) if Path(name).suffix.lower() in IMAGE_SUFFIXES)
        relative += [Path(parent, name).relative_to(folder).as_posix() for name in pictures if not name.startswith(".")]
    if not relative:
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        raise ManifestError(
            f"{folder}: no picture in this folder (looked for {known}, subfolders too). "
            "DICOM files are converted first: dinov2 preprocess --input DICOMS --output PICTURES."
        )
    return from_rows(({"image": name, "image_id": name, "source": name} for name in relative), root=folder)


def read_id_list(path: Path) -> frozenset[str]:
    """Names from a CSV: its first column, or the one that a header calls image, file, path, image_id, id or source."""
    if not path.is_file():
        raise ManifestError(f"{path}: no such list of files or ids.")
    with path.open(newline="", encoding="utf-8-sig") as stream:
        rows = [row for row in csv.reader(stream) if row and row[0].strip()]
    known = {"image", "image_id", "id", "source", *(s for s, target in SYNONYMS.items() if target == "image")}
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    named = next((i for i, name in enumerate(header) if name in known), None)
    column, body = (0, rows) if named is None else (named, rows[1:])
    names = frozenset(row[column].strip() for row in body if len(row) > column) - {""}
    if not names:
        raise ManifestError(f"{path}: the list is empty.")
    return names


def _parts(path: Path, *, columns: Collection[str] | None) -> Generator[pa.Table, None, None]:
    """The table as it is; in a CSV, columns that identify something stay text, so that patient 007 is not patient 7."""
    is_csv = path.suffix.lower() == ".csv"
    try:
        if is_csv:
            yield _read_csv(path)
            return
        with pq.ParquetFile(path) as file:
            present = file.schema_arrow.names
            names = [
                name
                for name, standard in zip(present, standard_names(present), strict=True)
                if columns is None or standard in columns
            ]
            if not file.metadata.num_rows:
                yield file.schema_arrow.empty_table()
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=names):
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError) as error:
        kind = "CSV" if is_csv else "Parquet"
        raise ManifestError(f"{path}: not a readable {kind} file ({error}). Write it again.") from error


def _read_csv(path: Path) -> pa.Table:
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
        header = next(csv.reader(stream), [])
    kinds = {name: pa.string() for name in header if COLUMNS.get(standard_name(name)) == pa.string()}
    kinds |= {name: pa.string() for name in header if name in KEPT_AS_TEXT}
    options = pa_csv.ConvertOptions(column_types=kinds, strings_can_be_null=True)
    return pa_csv.read_csv(path, convert_options=options)


def _standard(table: pa.Table, *, path: Path) -> pa.Table:
    """Columns under their standard names and types; absent ones null."""
    names = standard_names(table.column_names)
    if "image" not in names:
        synonyms = ", ".join(sorted(synonym for synonym, target in SYNONYMS.items() if target == "image"))
        raise ManifestError(
            f"{path}: no column names the picture; expected 'image' (or {synonyms}). Columns present: {names}."
        )
    table = table.rename_columns(names)
    columns: dict[str, pa.ChunkedArray] = {
        name: _cast(table, name, kind=kind, path=path) if name in names else pa.nulls(table.num_rows, kind)
        for name, kind in COLUMNS.items()
    }
    if "image_id" not in names:
        columns["image_id"] = columns["image"]
    columns |= {
        name: _cast(table, name, kind=PLACES[name], path=path) if name in PLACES else table.column(name)
        for name in names
        if name not in COLUMNS
    }
    return pa.table(columns)


def _cast(table: pa.Table, name: str, *, kind: pa.DataType, path: Path) -> pa.ChunkedArray:
    try:
        return table.column(name).cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ManifestError(f"{path}: column '{name}' should hold {kind}: {error}. Mend the column.") from error
