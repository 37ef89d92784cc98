"""The door between `preprocess` and `data`: one row per picture.

In: a Parquet or CSV file, or rows from a conversion. Out: a `Manifest`, which can be filtered, sampled and written. A
manifest is an Arrow table, so four million rows cost their bytes and nothing more. Columns that are not listed in
`COLUMNS` (labels, sex, age ...) travel along untouched.
"""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from dinov2.errors import ManifestError

COLUMNS: Mapping[str, pa.DataType] = {
    "image": pa.string(),  # path of the picture, relative to the manifest's folder or absolute
    "image_id": pa.string(),
    "dataset": pa.string(),
    "patient": pa.string(),
    "study": pa.string(),
    "view": pa.string(),  # AP, PA, LATERAL, LL, RL ... as the source says
    "split": pa.string(),  # train, val, test ... as the source says
    "width": pa.int32(),
    "height": pa.int32(),
    "sha256": pa.string(),  # of the picture file's bytes
    "source": pa.string(),  # the input file, relative to the input folder
}
SYNONYMS: Mapping[str, str] = {
    "file": "image",
    "path": "image",
    "filename": "image",
    "file_name": "image",
    "image_path": "image",
    "patient_id": "patient",
    "subject_id": "patient",
    "study_id": "study",
    "view_position": "view",
    "viewposition": "view",
}
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff"})


@dataclass(frozen=True)
class Manifest:
    """Pictures and what is known of them; `root` is the folder that relative paths start from."""

    table: pa.Table
    root: Path

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def path(self, row: int) -> Path:
        """The picture file of a row."""
        return self.root / str(self.table.column("image")[row])

    def row(self, row: int) -> dict[str, Any]:
        """Every column of one row, as Python values."""
        values: dict[str, Any] = self.table.slice(row, 1).to_pylist()[0]
        return values

    def filter(
        self,
        *,
        splits: Sequence[str] = (),
        views: Sequence[str] = (),
        datasets: Sequence[str] = (),
        include: frozenset[str] | None = None,
        exclude: frozenset[str] | None = None,
    ) -> "Manifest":
        """Rows that pass every filter given; upper and lower case are the same.

        `include` and `exclude` hold values of `image`, `image_id`, `source` or their file names (see `read_id_list`).
        """
        keep = pa.array(np.ones(len(self), dtype=bool))
        for column, wanted in (("split", splits), ("view", views), ("dataset", datasets)):
            if wanted:
                keep = pc.and_(keep, self._among(column, wanted))
        if include is not None:
            keep = pc.and_(keep, self._named(include))
        if exclude is not None:
            keep = pc.and_(keep, pc.invert(self._named(exclude)))
        return Manifest(self.table.filter(keep), self.root)

    def sample(self, fraction: float, *, seed: int) -> "Manifest":
        """A random share of the rows, in their order; the same rows for the same seed."""
        if fraction >= 1:
            return self
        count = max(1, round(fraction * len(self)))
        rows = np.sort(np.random.default_rng(seed).permutation(len(self))[:count])
        return Manifest(self.table.take(pa.array(rows)), self.root)

    def missing_files(self, *, limit: int = 20_000) -> list[int]:
        """Rows whose picture is not on disk, among at most `limit` rows spread evenly over the manifest."""
        rows = np.unique(np.linspace(0, len(self) - 1, min(limit, len(self))).astype(int))
        return [int(row) for row in rows if not self.path(int(row)).is_file()]

    def write(self, path: Path) -> None:
        """Parquet or CSV by the file's suffix; the file appears whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        if path.suffix == ".csv":
            pa_csv.write_csv(self.table, partial)
        else:
            pq.write_table(self.table, partial)
        partial.replace(path)

    def _among(self, column: str, wanted: Sequence[str]) -> pa.Array:
        values = self.table.column(column)
        passed = pc.fill_null(
            pc.is_in(pc.utf8_lower(values), value_set=pa.array([name.lower() for name in wanted])), False
        )
        if not pc.any(passed).as_py():
            present = sorted({str(value) for value in pc.unique(values).to_pylist()})[:12]
            raise ManifestError(
                f"no row has {column} in {list(wanted)}; the {column}s present are {present}. "
                f"Correct the filter, or fill the column '{column}' of the manifest."
            )
        return passed

    def _named(self, names: frozenset[str]) -> pa.Array:
        wanted = pa.array(sorted(names), type=pa.string())
        found = pa.array(np.zeros(len(self), dtype=bool))
        for column in ("image", "image_id", "source"):
            values = self.table.column(column)
            base = pc.replace_substring_regex(values, pattern=r"^.*/", replacement="")
            stem = pc.replace_substring_regex(base, pattern=r"\.[^.]*$", replacement="")
            for candidate in (values, base, stem):
                found = pc.or_(found, pc.fill_null(pc.is_in(candidate, value_set=wanted), False))
        return found


def from_rows(rows: Iterable[Mapping[str, Any]], *, root: Path) -> Manifest:
    """A manifest from dictionaries; absent standard columns become null, other keys become extra columns."""
    listed = list(rows)
    extra = list(dict.fromkeys(key for row in listed for key in row if key not in COLUMNS))
    columns: dict[str, pa.Array] = {
        name: pa.array([row.get(name) for row in listed], type=kind) for name, kind in COLUMNS.items()
    }
    columns |= {name: pa.array([row.get(name) for row in listed]) for name in extra}
    return Manifest(pa.table(columns), root)


def read(path: Path) -> Manifest:
    """A manifest from Parquet or CSV.  Relative pictures are looked for beside the file.

    Raises ManifestError where the file is absent, is no table, has no column that names the picture, or has no row.
    """
    if not path.is_file():
        raise ManifestError(
            f"{path}: no such manifest. Give a .parquet or .csv file, as `dinov2 preprocess` writes it."
        )
    table = _standard(_read_table(path), path=path)
    if table.num_rows == 0:
        raise ManifestError(f"{path}: the manifest has no row.")
    image = table.column("image")
    empty = pc.sum(pc.or_kleene(pc.is_null(image), pc.equal(image, ""))).as_py()
    if empty:
        raise ManifestError(
            f"{path}: {empty} of {table.num_rows} rows name no picture (column 'image' is empty). Remove or fill them."
        )
    return Manifest(table, path.parent)


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


def _read_table(path: Path) -> pa.Table:
    """The table as it is; in a CSV, columns that identify something stay text, so that patient 007 is not patient 7."""
    is_csv = path.suffix.lower() == ".csv"
    try:
        if not is_csv:
            return pq.read_table(path)
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
            header = next(csv.reader(stream), [])
        texts = [name for name in header if COLUMNS.get(_standard_name(name)) == pa.string()]
        options = pa_csv.ConvertOptions(column_types=dict.fromkeys(texts, pa.string()), strings_can_be_null=True)
        return pa_csv.read_csv(path, convert_options=options)
    except (pa.ArrowException, OSError) as error:
        kind = "CSV" if is_csv else "Parquet"
        raise ManifestError(f"{path}: not a readable {kind} file ({error}). Write it again.") from error


def _standard(table: pa.Table, *, path: Path) -> pa.Table:
    """Columns under their standard names and types; absent ones null."""
    names = _standard_names(table.column_names)
    if "image" not in names:
        synonyms = ", ".join(sorted(synonym for synonym, target in SYNONYMS.items() if target == "image"))
        raise ManifestError(
            f"{path}: no column names the picture; expected 'image' (or {synonyms}). Columns present: {names}."
        )
    table = table.rename_columns(names)
    columns: dict[str, pa.ChunkedArray] = {
        name: _cast(table, name, path=path) if name in names else pa.nulls(table.num_rows, kind)
        for name, kind in COLUMNS.items()
    }
    if "image_id" not in names:
        columns["image_id"] = columns["image"]
    columns |= {name: table.column(name) for name in names if name not in COLUMNS}
    return pa.table(columns)


def _standard_name(name: str) -> str:
    """What a column is called here; a column that is not one of ours keeps its name."""
    lower = name.lower()
    return SYNONYMS.get(lower, lower if lower in COLUMNS else name)


def _standard_names(present: Sequence[str]) -> list[str]:
    """Each column's standard name, unless another column has it already."""
    names = list(present)
    for place, name in enumerate(names):
        standard = _standard_name(name)
        if standard not in names:
            names[place] = standard
    return names


def _cast(table: pa.Table, name: str, *, path: Path) -> pa.ChunkedArray:
    try:
        return table.column(name).cast(COLUMNS[name])
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ManifestError(
            f"{path}: column '{name}' should hold {COLUMNS[name]}: {error}. Mend the column."
        ) from error
